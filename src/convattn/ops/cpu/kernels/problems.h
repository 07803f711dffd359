// What the kernels are asked to compute; the Python side mirrors these structures.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace convattn {

// To be raised with every change to the structures or functions of the C interface, here and in library.py.
static constexpr int INTERFACE = 8;

// The upper half of a float.
struct BFloat16 {
  uint16_t bits;
};

inline float to_float(float x) { return x; }

inline float to_float(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline void assign(float& to, float x) { to = x; }

inline void assign(BFloat16& to, float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  to.bits = x == x ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fc0;
}

// A feature map (N, C, H, W) of any memory format; strides in elements.
template <class Number>
struct Map {
  Number* data;
  int64_t batch, channel, row, column;

  Number* at(int64_t n, int64_t c, int64_t y, int64_t x) const {
    return data + n * batch + c * channel + y * row + x * column;
  }
};

// Layer normalization of each pixel over its channels; without weights there is none.
template <class Number>
struct Norm {
  const Number *weight, *bias;
  double epsilon;
};

// softmax(q kᵀ / √d + table) v within windows of window × window pixels; q, k and v are maps or, where there is x,
// its projections by a 1×1 convolution.
template <class Number>
struct WindowAttention {
  Map<Number> x, q, k, v, out;   // the channels of a pixel lie together
  Norm<Number> norm;             // of x
  const Number *weight, *bias;   // of the projection, (3 heads · head_dim, heads · head_dim), contiguous
  const Number* table;           // (heads, 2 window − 1, 2 window − 1), contiguous
  int64_t images, heads, head_dim, height, width, window;
};

// x * large_kernel + x * dynamic_kernel, the first convolution dense and the second depthwise, zero-padded. Where no
// dynamic kernel is given it is expand(gelu(reduce(average of x))).
template <class Number>
struct ConvAttention {
  Map<Number> x, out;            // the channels of a pixel lie together
  const Number* large_kernel;    // (channels, channels, size, size), contiguous
  const Number* dynamic_kernel;  // (images, channels, dynamic_size, dynamic_size), contiguous
  const Number *reduce_weight, *reduce_bias, *expand_weight, *expand_bias;  // (out, in), contiguous
  int64_t images, channels, height, width, size, dynamic_size, hidden;

  // Whether the large kernel is the same under all flips and rotations.
  bool symmetric() const {
    for (int64_t i = 0; i < channels * channels; ++i) {
      const Number* kernel = large_kernel + i * size * size;
      for (int64_t y = 0; y < size; ++y)
        for (int64_t x = 0; x < size; ++x) {
          const float value = to_float(kernel[y * size + x]);
          if (value != to_float(kernel[x * size + y])) return false;
          if (value != to_float(kernel[y * size + size - 1 - x])) return false;
        }
    }
    return true;
  }
};

// project(h + gelu(depthwise(h))) with h = gelu(expand(norm(x))); every weight contiguous, (out, in) or
// (hidden, 3, 3).
template <class Number>
struct FeedForward {
  Map<Number> x, out;  // the channels of a pixel lie together
  Norm<Number> norm;
  const Number *expand_weight, *expand_bias, *depthwise_weight, *depthwise_bias, *project_weight, *project_bias;
  int64_t images, channels, height, width, hidden;
};

// A 1×1 or 3×3 convolution, zero-padded, of two maps whose channels are joined, plus a residual; the second map may
// have no channels, and the residual may be missing. Kernels of 3×3 take one map.
template <class Number>
struct Convolution {
  Map<Number> x, other, residual, out;  // the channels of a pixel lie together
  Norm<Number> norm;                    // of x
  const Number *weight, *bias;          // (out_channels, channels + other_channels, size, size), contiguous
  int64_t images, channels, other_channels, out_channels, height, width;
};

// Gradients of the operators above, named after them. ``grad`` is that of the result and ``x_grad`` that of x, which
// is not computed where it has no memory. Gradients of parameters lie one after the other in ``sums``, each in the
// order of the parameter: those of the structure's members from left to right, then weight and bias of the norm.

template <class Number>
struct FeedForwardGradient {
  Map<Number> x, grad, x_grad;
  Norm<Number> norm;
  const Number *expand_weight, *expand_bias, *depthwise_weight, *depthwise_bias, *project_weight;
  float* sums;  // of the five and of project_bias
  int64_t images, channels, height, width, hidden;
};

// Of a large kernel that has every symmetry, averaged over them; the gradient of x is a convolutional attention.
template <class Number>
struct ConvAttentionGradient {
  ConvAttention<Number> forward;  // of which x, out as the gradient of the result, and sizes are read
  float* sums;                    // of large_kernel and dynamic_kernel
};

// For 3×3 kernels only parameters' gradients, and x_grad is read: it holds those of the normalized x.
template <class Number>
struct ConvolutionGradient {
  Map<Number> x, other, grad, x_grad, other_grad;
  Norm<Number> norm;
  const Number* weight;
  float* sums;  // of weight and bias
  int64_t images, channels, other_channels, out_channels, height, width;
};

// Of whole windows: the height and width are multiples of the window's.
template <class Number>
struct WindowAttentionGradient {
  Map<Number> x, grad, x_grad;
  Norm<Number> norm;
  const Number *weight, *bias, *table;
  float* sums;  // of the three
  int64_t images, heads, head_dim, height, width, window;
};

// Memory on a border of cache lines, not initialised.
template <class Number>
class Buffer {
 public:
  explicit Buffer(int64_t count)
      : data_(static_cast<Number*>(::operator new(count * sizeof(Number), ALIGNMENT))) {}
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { ::operator delete(data_, ALIGNMENT); }
  operator Number*() const { return data_; }

 private:
  static constexpr std::align_val_t ALIGNMENT{64};
  Number* data_;
};

// Continue 0 … size − 1 by reflection at its ends, back and forth.
inline int64_t reflected(int64_t i, int64_t size) {
  const int64_t period = size > 1 ? 2 * (size - 1) : 1;
  i %= period;
  return i < period - i ? i : period - i;
}

}  // namespace convattn
