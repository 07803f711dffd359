// What the kernels are asked to compute; the Python side mirrors these structures.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

namespace convattn {

// A feature map (N, C, H, W) of any memory format; strides in elements.
struct Map {
  float* data;
  int64_t batch, channel, row, column;

  float* at(int64_t n, int64_t c, int64_t y, int64_t x) const {
    return data + n * batch + c * channel + y * row + x * column;
  }
};

// softmax(q kᵀ / √d + bias) v within windows of window × window pixels.
struct WindowAttention {
  Map q, k, v, out;
  const float* bias;  // (heads, 2 window − 1, 2 window − 1), contiguous
  int64_t pictures, heads, head_dim, height, width, window;
};

// x * large_kernel + x * dynamic_kernel, the first convolution dense and the second depthwise, zero-padded.
struct ConvAttention {
  Map x, out;                   // the channels of a pixel lie together
  const float* large_kernel;    // (channels, channels, size, size), contiguous
  const float* dynamic_kernel;  // (pictures, channels, dynamic_size, dynamic_size), contiguous
  int64_t pictures, channels, height, width, size, dynamic_size;

  // Whether the large kernel is the same under all flips and rotations.
  bool symmetric() const {
    for (int64_t i = 0; i < channels * channels; ++i) {
      const float* kernel = large_kernel + i * size * size;
      for (int64_t y = 0; y < size; ++y)
        for (int64_t x = 0; x < size; ++x) {
          const float value = kernel[y * size + x];
          if (value != kernel[x * size + y] || value != kernel[y * size + size - 1 - x]) return false;
        }
    }
    return true;
  }
};

// project(h + gelu(depthwise(h))) with h = gelu(expand(x)); every weight contiguous, (out, in) or (hidden, 3, 3).
struct FeedForward {
  Map x, out;  // the channels of a pixel lie together
  const float *expand_weight, *expand_bias, *depthwise_weight, *depthwise_bias, *project_weight, *project_bias;
  int64_t pictures, channels, height, width, hidden;
};

// A 1×1 convolution of two maps whose channels are joined; the second may have none.
struct Pointwise {
  Map x, other, out;           // the channels of a pixel lie together
  const float *weight, *bias;  // (out_channels, channels + other_channels), contiguous
  int64_t pictures, channels, other_channels, out_channels, height, width;
};

// Memory on a border of cache lines, not initialised.
class Buffer {
 public:
  explicit Buffer(int64_t floats)
      : data_(static_cast<float*>(std::aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64))) {
    if (!data_) throw std::bad_alloc();
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }
  operator float*() const { return data_; }

 private:
  float* data_;
};

// Continue 0 … size − 1 by reflection at its ends, back and forth.
inline int64_t reflected(int64_t i, int64_t size) {
  const int64_t period = size > 1 ? 2 * (size - 1) : 1;
  i %= period;
  return i < period - i ? i : period - i;
}

}  // namespace convattn
