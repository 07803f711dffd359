// Pointwise convolution of joined maps. Included once for each instruction set, inside its namespace.

class PointwiseKernel {
 public:
  explicit PointwiseKernel(const Pointwise& problem)
      : p_(problem),
        channels_(p_.channels + p_.other_channels),
        padded_(round_up(p_.out_channels, LANES)),
        matrix_(channels_ * padded_),
        bias_(padded_) {
    std::fill(matrix_ + 0, matrix_ + channels_ * padded_, 0.0f);
    std::fill(bias_ + 0, bias_ + padded_, 0.0f);
    for (int64_t i = 0; i < p_.out_channels; ++i) {
      for (int64_t j = 0; j < channels_; ++j) matrix_[j * padded_ + i] = p_.weight[i * channels_ + j];
      bias_[i] = p_.bias[i];
    }
  }

  int64_t tasks() const { return p_.pictures * p_.height; }

  // One row of one picture.
  void operator()(int64_t task) const {
    const int64_t picture = task / p_.height, y = task % p_.height;
    const Buffer in(TILE * channels_), out(TILE * padded_);
    std::fill(in + 0, in + TILE * channels_, 0.0f);
    for (int64_t left = 0; left < p_.width; left += TILE) {
      const int64_t pixels = std::min(TILE, p_.width - left);
      for (int64_t x = 0; x < pixels; ++x) {
        float* pixel = in + x * channels_;
        copy(p_.x.at(picture, 0, y, left + x), p_.channels, pixel);
        copy(p_.other.at(picture, 0, y, left + x), p_.other_channels, pixel + p_.channels);
        copy(bias_, padded_, out + x * padded_);
      }
      multiply(pixels, in, channels_, channels_, matrix_, padded_, out, padded_);
      for (int64_t x = 0; x < pixels; ++x)
        copy(out + x * padded_, p_.out_channels, p_.out.at(picture, 0, y, left + x));
    }
  }

 private:
  static constexpr int64_t TILE = 32;  // pixels, so that they stay in the nearest cache

  static void copy(const float* from, int64_t count, float* to) { std::memcpy(to, from, count * sizeof(float)); }

  const Pointwise p_;
  const int64_t channels_, padded_;
  const Buffer matrix_;  // (in, out), the last padded
  const Buffer bias_;
};
