// Gradients of the pointwise convolution of joined maps. Included once for each instruction set, inside its namespace.

#ifndef CONVATTN_NAMESPACE
#include "by_itself.h"
#include "simd.inl.h"
#include "matmul.inl.h"
#include "pixels.inl.h"
#include "gradients.inl.h"
#endif

template <class Number>
class PointwiseGradientKernel {
 public:
  PointwiseGradientKernel(const ConvolutionGradient<Number>& problem, int)
      : p_(problem),
        channels_(p_.channels + p_.other_channels),
        back_(p_.out_channels, channels_),
        width_(back_.columns),
        outs_(round_up(p_.out_channels, LANES)),
        nothing_(width_),
        reader_(p_.norm, p_.channels),
        norm_(p_.norm, p_.channels),
        sums_(p_.images * p_.height, p_.out_channels * width_ + outs_ + norm_.sums()) {
    std::fill(nothing_ + 0, nothing_ + width_, 0.0f);
    for (int64_t i = 0; i < p_.out_channels; ++i)
      for (int64_t j = 0; j < channels_; ++j) back_.set(i, j, to_float(p_.weight[i * channels_ + j]));
  }

  int64_t tasks() const { return sums_.parts; }

  void operator()(int64_t task) const {
    Tile tile(*this);
    sums_.compute(task, [&](int64_t row, float* sums) {
      for (int64_t x = 0; x < p_.width; x += TILE)
        tile.differentiate(row / p_.height, row % p_.height, x, std::min(TILE, p_.width - x), sums);
    });
  }

  void finish() const {
    const float* from = sums_.total();
    float* to = unpad(from, p_.out_channels, channels_, width_, p_.sums);
    to = unpad(from + p_.out_channels * width_, 1, p_.out_channels, outs_, to);
    norm_.unpad_sums(from + p_.out_channels * width_ + outs_, to);
  }

 private:
  using O = Operand<Number>;
  static constexpr int64_t TILE = 32;  // pixels, so that they stay in the nearest cache

  struct Tile {
    explicit Tile(const PointwiseGradientKernel& kernel)
        : a(kernel),
          in(TILE * a.width_),
          grads(TILE * a.outs_),
          in_stack(TILE, a.width_),
          grad_stack(TILE, a.outs_),
          in_grads(TILE * a.width_),
          scratch(std::max(a.reader_.scratch(), a.norm_.scratch())) {
      std::memset(in, 0, TILE * a.width_ * sizeof(O));
      std::memset(grads, 0, TILE * a.outs_ * sizeof(O));
    }

    // Adds to the sums, and writes the gradients of both maps.
    void differentiate(int64_t image, int64_t y, int64_t left, int64_t pixels, float* sums) {
      const auto& p = a.p_;
      for (int64_t i = 0; i < pixels; ++i) {
        O* to = in + i * a.width_;
        a.reader_.read(p.x.at(image, 0, y, left + i), scratch, to);
        copy(p.other.at(image, 0, y, left + i), p.other_channels, to + p.channels);
        copy(p.grad.at(image, 0, y, left + i), p.out_channels, grads + i * a.outs_);
      }
      add_products(pixels, grad_stack(pixels, grads, a.outs_, a.outs_), p.out_channels,
                   in_stack(pixels, in, a.width_, a.width_), a.width_, sums);
      sums += p.out_channels * a.width_;
      add_pixels(pixels, grads + 0, a.outs_, sums);
      if (!p.x_grad.data && !a.norm_.sums() && !p.other_grad.data) return;
      multiply<O>(pixels, grads, a.outs_, a.back_.depth, a.back_.from(0), a.width_, a.nothing_, 0, in_grads, a.width_);
      for (int64_t i = 0; i < pixels; ++i) {
        Number* to = p.x_grad.data ? p.x_grad.at(image, 0, y, left + i) : nullptr;
        const float* grad = in_grads + i * a.width_;
        a.norm_.write(p.x.at(image, 0, y, left + i), grad, scratch, sums + a.outs_, to);
        if (p.other_grad.data) copy(grad + p.channels, p.other_channels, p.other_grad.at(image, 0, y, left + i));
      }
    }

    const PointwiseGradientKernel& a;
    const Buffer<O> in, grads;  // (TILE, channels), (TILE, out_channels)
    const Stack<O> in_stack, grad_stack;
    const Buffer<float> in_grads;  // (TILE, channels)
    const Buffer<float> scratch;
  };

  const ConvolutionGradient<Number> p_;
  const int64_t channels_;
  Matrix<O> back_;
  const int64_t width_, outs_;  // channels, padded
  const Buffer<float> nothing_;  // a pixel
  const Reader<Number> reader_;
  const NormGradient<Number> norm_;
  const Sums sums_;
};
