// Pointwise convolution of joined maps. Included once for each instruction set, inside its namespace.

#ifndef CONVATTN_NAMESPACE
#include "by_itself.h"
#include "simd.inl.h"
#include "matmul.inl.h"
#include "pixels.inl.h"
#endif

template <class Number>
class PointwiseKernel {
 public:
  PointwiseKernel(const Convolution<Number>& problem, int)
      : p_(problem),
        channels_(p_.channels + p_.other_channels),
        matrix_(channels_, p_.out_channels),
        bias_(p_.bias, p_.out_channels),
        reader_(p_.norm, p_.channels) {
    for (int64_t i = 0; i < p_.out_channels; ++i)
      for (int64_t j = 0; j < channels_; ++j) matrix_.set(j, i, to_float(p_.weight[i * channels_ + j]));
  }

  int64_t tasks() const { return p_.images * p_.height; }

  // One row of one image.
  void operator()(int64_t task) const {
    const int64_t image = task / p_.height, y = task % p_.height, depth = matrix_.depth, columns = matrix_.columns;
    const Buffer<O> in(TILE * depth);
    const Buffer<float> out(TILE * columns), scratch(reader_.scratch());
    std::memset(in, 0, TILE * depth * sizeof(O));
    for (int64_t left = 0; left < p_.width; left += TILE) {
      const int64_t pixels = std::min(TILE, p_.width - left);
      for (int64_t i = 0; i < pixels; ++i) {
        reader_.read(p_.x.at(image, 0, y, left + i), scratch, in + i * depth);
        copy(p_.other.at(image, 0, y, left + i), p_.other_channels, in + i * depth + p_.channels);
      }
      multiply<O>(pixels, in, depth, depth, matrix_.from(0), columns, bias_, 0, out, columns);
      for (int64_t i = 0; i < pixels; ++i) {
        if (p_.residual.data) add(p_.residual.at(image, 0, y, left + i), p_.out_channels, out + i * columns);
        copy(out + i * columns, p_.out_channels, p_.out.at(image, 0, y, left + i));
      }
    }
  }

 private:
  using O = Operand<Number>;
  static constexpr int64_t TILE = 32;  // pixels, so that they stay in the nearest cache

  const Convolution<Number> p_;
  const int64_t channels_;
  Matrix<O> matrix_;
  const Parameter<Number> bias_;
  const Reader<Number> reader_;
};
