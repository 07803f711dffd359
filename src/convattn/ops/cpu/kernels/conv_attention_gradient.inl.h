// Gradients of both kernels of convolutional attention. Included once for each instruction set, inside its namespace.
//
// Mirrored taps of the large kernel share one gradient, so pixels at them are added first, as in the forward pass.

#ifndef CONVATTN_NAMESPACE
#include "by_itself.h"
#include "simd.inl.h"
#include "matmul.inl.h"
#include "pixels.inl.h"
#include "gradients.inl.h"
#include "conv_attention.inl.h"
#endif

template <class Number>
class ConvAttentionGradientKernel : ConvAttentionKernel<Number> {
  using O = Operand<Number>;
  using Forward = ConvAttentionKernel<Number>;
  using Forward::p_, Forward::bands_, Forward::tiles_, Forward::height_, Forward::tile_, Forward::radius_;
  using Forward::depth_, Forward::matrix_, Forward::area_;

 public:
  ConvAttentionGradientKernel(const ConvAttentionGradient<Number>& problem, int)
      : Forward(problem.forward, 1),
        to_(problem.sums),
        columns_(round_up(matrix_.depth, LANES)),
        sums_(Forward::tasks(), p_.channels * columns_),
        dynamic_sums_(Forward::tasks() * area_ * matrix_.columns) {
    std::fill(dynamic_sums_ + 0, dynamic_sums_ + Forward::tasks() * area_ * matrix_.columns, 0.0f);
  }

  int64_t tasks() const { return sums_.parts; }

  void operator()(int64_t task) const {
    sums_.compute(task, [this](int64_t piece, float* sums) {
      const int64_t tile = piece % tiles_, band = piece / tiles_ % bands_, image = piece / tiles_ / bands_;
      GradientTile rows(*this, image, tile * tile_, sums, dynamic_sums_ + piece * area_ * matrix_.columns);
      rows.run(band * height_, std::min(p_.height, (band + 1) * height_));
    });
  }

  void finish() const {
    const float* from = sums_.total();
    for (int64_t out = 0; out < p_.channels; ++out)
      for (int64_t in = 0; in < p_.channels; ++in) unfold(from + out * columns_ + in, out, in);
    float* to = to_ + p_.channels * p_.channels * p_.size * p_.size;
    const int64_t pieces = bands_ * tiles_, count = area_ * matrix_.columns;
    for (int64_t image = 0; image < p_.images; ++image) {
      float* sums = dynamic_sums_ + image * pieces * count;
      for (int64_t piece = 1; piece < pieces; ++piece) add(sums + piece * count, count, sums);
      for (int64_t c = 0; c < p_.channels; ++c)
        for (int64_t tap = 0; tap < area_; ++tap) *to++ = sums[tap * matrix_.columns + c];
    }
  }

 private:
  // Every tap of the kernel gets an equal share of what was summed for all that mirror it.
  void unfold(const float* from, int64_t out, int64_t in) const {
    float* center = to_ + (out * p_.channels + in) * p_.size * p_.size + radius_ * (p_.size + 1);
    for (int64_t dy = 0; dy <= radius_; ++dy)
      for (int64_t dx = 0; dx <= dy; ++dx, from += depth_) {
        const float share = *from / (dy == 0 ? 1 : dx == 0 || dx == dy ? 4 : 8);
        for (const int64_t y : {-dy, dy})
          for (const int64_t x : {-dx, dx}) center[y * p_.size + x] = center[x * p_.size + y] = share;
      }
  }

  struct GradientTile : Forward::Tile {
    GradientTile(const ConvAttentionGradientKernel& kernel, int64_t image, int64_t left, float* large, float* dynamic)
       
        : Forward::Tile(kernel, image, left),
          g(kernel),
          large(large),
          dynamic_sum(dynamic),
          grads(PIXELS * width()),
          grad_stack(PIXELS, width()),
          product_stack(PIXELS, g.columns_) {
      std::memset(grads, 0, PIXELS * width() * sizeof(O));
    }

    int64_t width() const { return g.matrix_.columns; }

    void run(int64_t top, int64_t bottom) {
      this->begin(top);
      for (int64_t y = top; y < bottom; ++y) {
        this->advance(y);
        for (int64_t x = 0; x < this->pixels; x += PIXELS) {
          const int64_t count = std::min<int64_t>(PIXELS, this->pixels - x);
          for (int64_t p = 0; p < count; ++p)
            copy(g.p_.out.at(this->image, 0, y, this->left + x + p), g.p_.channels, grads + p * width());
          this->add_mirrored_taps(x);
          add_products(count, grad_stack(count, grads, width(), width()), g.p_.channels,
                       product_stack(count, this->products, g.stride_, g.columns_), g.columns_, large);
          add_dynamic(y, x, count);
        }
      }
    }

    void add_dynamic(int64_t y, int64_t x, int64_t count) const {
      const int64_t size = g.p_.dynamic_size, offset = g.reach_ - size / 2;
      for (int64_t i = 0; i < size; ++i)
        for (int64_t j = 0; j < size; ++j)
          for (int64_t c = 0; c < width(); c += LANES) {
            const float* pixel = this->row(y + i - size / 2) + (x + offset + j) * width() + c;
            float* to = dynamic_sum + (i * size + j) * width() + c;
            Vector sum = load(to);
            for (int64_t p = 0; p < count; ++p) sum += load(grads + p * width() + c) * load(pixel + p * width());
            store(to, sum);
          }
    }

    const ConvAttentionGradientKernel& g;
    float *large, *dynamic_sum;
    const Buffer<O> grads;  // (PIXELS, channels)
    const Stack<O> grad_stack, product_stack;
  };

  float* to_;
  const int64_t columns_;  // taps · channels, padded
  const Sums sums_;        // (channels, taps, channels)
  const Buffer<float> dynamic_sums_;  // (pieces, dynamic_size², channels)
};
