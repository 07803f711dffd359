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
    const Buffer<float> in(TILE * width_), grads(TILE * outs_), scratch(reader_.scratch() + norm_.scratch());
    std::fill(in + 0, in + TILE * width_, 0.0f);
    std::fill(grads + 0, grads + TILE * outs_, 0.0f);
    sums_.compute(task, [&](int64_t row, float* sums) {
      for (int64_t x = 0; x < p_.width; x += TILE)
        differentiate(row / p_.height, row % p_.height, x, std::min(TILE, p_.width - x), in, grads, scratch, sums);
    });
  }

  void finish() const {
    const float* from = sums_.total();
    float* to = unpad(from, p_.out_channels, channels_, width_, p_.sums);
    to = unpad(from + p_.out_channels * width_, 1, p_.out_channels, outs_, to);
    norm_.unpad_sums(from + p_.out_channels * width_ + outs_, to);
  }

 private:
  static constexpr int64_t TILE = 32;  // pixels, so that they stay in the nearest cache

  void differentiate(int64_t image, int64_t y, int64_t left, int64_t pixels, float* in, float* grads, float* scratch,
                     float* sums) const {
    for (int64_t i = 0; i < pixels; ++i) {
      float* to = in + i * width_;
      reader_.read(p_.x.at(image, 0, y, left + i), scratch, to);
      copy(p_.other.at(image, 0, y, left + i), p_.other_channels, to + p_.channels);
      copy(p_.grad.at(image, 0, y, left + i), p_.out_channels, grads + i * outs_);
    }
    add_products(pixels, grads, outs_, p_.out_channels, in, width_, width_, sums);
    sums += p_.out_channels * width_;
    add_pixels(pixels, grads, outs_, sums);
    if (!p_.x_grad.data && !norm_.sums() && !p_.other_grad.data) return;
    multiply<float>(pixels, grads, outs_, p_.out_channels, back_.from(0), width_, nothing_, 0, in, width_);
    for (int64_t i = 0; i < pixels; ++i) {
      Number* to = p_.x_grad.data ? p_.x_grad.at(image, 0, y, left + i) : nullptr;
      norm_.write(p_.x.at(image, 0, y, left + i), in + i * width_, scratch, sums + outs_, to);
      if (p_.other_grad.data)
        copy(in + i * width_ + p_.channels, p_.other_channels, p_.other_grad.at(image, 0, y, left + i));
    }
  }

  const ConvolutionGradient<Number> p_;
  const int64_t channels_;
  Matrix<float> back_;
  const int64_t width_, outs_;  // channels, padded
  const Buffer<float> nothing_;  // a pixel
  const Reader<Number> reader_;
  const NormGradient<Number> norm_;
  const Sums sums_;
};
