// Gradients of the 3×3 convolution's parameters. Included once for each instruction set, inside its namespace.
//
// As in the forward pass squares of 2×2 pixels cost 16 products in place of 36: the gradient of U = G w Gᵀ is the sum
// over squares of the products of Bᵀ d B and A g Aᵀ.

#ifndef CONVATTN_NAMESPACE
#include "by_itself.h"
#include "simd.inl.h"
#include "matmul.inl.h"
#include "pixels.inl.h"
#include "gradients.inl.h"
#include "convolution.inl.h"
#endif

template <class Number>
class ConvolutionGradientKernel : ConvolutionKernel<Number> {
  using O = Operand<Number>;
  using Forward = ConvolutionKernel<Number>;
  using Forward::bands_, Forward::height_, Forward::squares_, Forward::width_, Forward::POINTS, Forward::SQUARES;

 public:
  ConvolutionGradientKernel(const ConvolutionGradient<Number>& problem, int)
      : Forward(forward(problem), 1),
        g_(problem),
        outs_(round_up(g_.out_channels, LANES)),
        norm_(g_.norm, g_.channels),
        sums_(Forward::tasks(), POINTS * g_.out_channels * width_ + outs_ + norm_.sums()) {}

  int64_t tasks() const { return sums_.parts; }

  void operator()(int64_t task) const {
    sums_.compute(task, [this](int64_t band, float* sums) {
      const int64_t top = band % bands_ * height_;
      GradientBand(*this, band / bands_, sums).run(top, std::min(g_.height, top + height_));
    });
  }

  void finish() const {
    const float* from = sums_.total();
    for (int64_t i = 0; i < g_.out_channels; ++i)
      for (int64_t j = 0; j < g_.channels; ++j) transform(from + i * width_ + j, g_.sums + (i * g_.channels + j) * 9);
    from += POINTS * g_.out_channels * width_;
    float* to = unpad(from, 1, g_.out_channels, outs_, g_.sums + g_.out_channels * g_.channels * 9);
    norm_.unpad_sums(from + outs_, to);
  }

 private:
  static Convolution<Number> forward(const ConvolutionGradient<Number>& g) {
    return {g.x,      {},         {},               {},             g.norm,   g.weight, nullptr,
            g.images, g.channels, g.other_channels, g.out_channels, g.height, g.width};
  }

  // Gᵀ u G
  void transform(const float* u, float* to) const {
    const int64_t step = g_.out_channels * width_;
    float half[3][4];
    for (int j = 0; j < 4; ++j) {
      const float a = u[j * step], b = u[(4 + j) * step], c = u[(8 + j) * step], d = u[(12 + j) * step];
      half[0][j] = a + (b + c) / 2;
      half[1][j] = (b - c) / 2;
      half[2][j] = (b + c) / 2 + d;
    }
    for (int i = 0; i < 3; ++i) {
      const float *h = half[i];
      *to++ = h[0] + (h[1] + h[2]) / 2;
      *to++ = (h[1] - h[2]) / 2;
      *to++ = (h[1] + h[2]) / 2 + h[3];
    }
  }

  struct GradientBand : Forward::Band {
    using Band = typename Forward::Band;

    GradientBand(const ConvolutionGradientKernel& kernel, int64_t image, float* sums)
        : Band(kernel, image),
          g(kernel),
          sums(sums),
          zeros(g.outs_),
          pixels(4 * g.outs_),
          grads(POINTS * SQUARES * g.outs_),
          in_stack(SQUARES, g.width_),
          grad_stack(SQUARES, g.outs_),
          of_normal(g.width_),
          norm_scratch(g.norm_.scratch()) {
      std::fill(zeros + 0, zeros + g.outs_, 0.0f);
      std::fill(pixels + 0, pixels + 4 * g.outs_, 0.0f);
    }

    void run(int64_t top, int64_t bottom) {
      this->read(top - 1);
      this->read(top);
      for (int64_t y = top; y < bottom; y += 2) {
        this->read(y + 1);
        this->read(y + 2);
        for (int64_t square = 0; square < g.squares_; square += SQUARES) {
          const int64_t count = std::min(SQUARES, g.squares_ - square);
          this->transform(y, square, count);
          for (int64_t i = 0; i < count; ++i) transform_grads(y, 2 * (square + i), bottom, i);
          for (int64_t point = 0; point < POINTS; ++point)
            add_products(count, grad_stack(count, grads + point * SQUARES * g.outs_, g.outs_, g.outs_),
                         g.g_.out_channels, in_stack(count, this->in + point * this->in_step, g.width_, g.width_),
                         g.width_, sums + point * g.g_.out_channels * g.width_);
        }
        for (int64_t i = y; i < std::min(bottom, y + 2); ++i) write(i);
      }
    }

    // A g Aᵀ of one square; pixels outside the band or the image have no gradient.
    void transform_grads(int64_t y, int64_t x, int64_t bottom, int64_t square) {
      const float* from[4];
      for (int64_t k = 0; k < 4; ++k) {
        const int64_t row = y + k / 2, column = x + k % 2;
        const bool inside = row < bottom && column < g.g_.width;
        if (inside) copy(g.g_.grad.at(this->image, 0, row, column), g.g_.out_channels, pixels + k * g.outs_);
        from[k] = inside ? pixels + k * g.outs_ : zeros + 0;
      }
      float* bias = sums + POINTS * g.g_.out_channels * g.width_;
      const int64_t step = SQUARES * g.outs_;
      for (int64_t c = 0; c < g.outs_; c += LANES) {
        const Vector a = load(from[0] + c), b = load(from[1] + c), d = load(from[2] + c), e = load(from[3] + c);
        const Vector left[4] = {a, a + d, a - d, -d}, right[4] = {b, b + e, b - e, -e};
        store(bias + c, load(bias + c) + left[1] + right[1]);
        O* to = grads + square * g.outs_ + c;
        CONVATTN_UNROLL(4)
        for (int r = 0; r < 4; ++r, to += 4 * step) {
          store(to, left[r]);
          store(to + step, left[r] + right[r]);
          store(to + 2 * step, left[r] - right[r]);
          store(to + 3 * step, -right[r]);
        }
      }
    }

    // Through the normalization, in place.
    void write(int64_t y) {
      if (!g.norm_.sums()) return;
      float* sum = sums + POINTS * g.g_.out_channels * g.width_ + g.outs_;
      for (int64_t x = 0; x < g.g_.width; ++x) {
        Number* grad = g.g_.x_grad.at(this->image, 0, y, x);
        copy(grad, g.g_.channels, of_normal + 0);
        g.norm_.write(g.g_.x.at(this->image, 0, y, x), of_normal, norm_scratch, sum, grad);
      }
    }

    const ConvolutionGradientKernel& g;
    float* sums;
    const Buffer<float> zeros;         // a pixel
    const Buffer<float> pixels;        // (2, 2, out_channels)
    const Buffer<O> grads;             // (POINTS, SQUARES, out_channels)
    const Stack<O> in_stack, grad_stack;
    const Buffer<float> of_normal;     // a pixel
    const Buffer<float> norm_scratch;
  };

  const ConvolutionGradient<Number> g_;
  const int64_t outs_;  // padded
  const NormGradient<Number> norm_;
  const Sums sums_;
};
