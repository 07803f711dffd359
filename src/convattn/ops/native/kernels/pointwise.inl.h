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
      const float* x = p_.x.at(picture, 0, y, left);
      const float* other = p_.other.at(picture, 0, y, left);
      float* to = p_.out.at(picture, 0, y, left);
      const int64_t pixels = std::min(TILE, p_.width - left);
      if (pixels == TILE && p_.out_channels == padded_) {
        multiply(TILE, x, p_.x.column, p_.channels, matrix_, padded_, bias_, 0, to, p_.out.column);
        multiply(TILE, other, p_.other.column, p_.other_channels, matrix_ + p_.channels * padded_, padded_, to,
                 p_.out.column, to, p_.out.column);
        continue;
      }
      for (int64_t i = 0; i < pixels; ++i) {  // where the kernel would reach beyond a pixel or a row
        copy(x + i * p_.x.column, p_.channels, in + i * channels_);
        copy(other + i * p_.other.column, p_.other_channels, in + i * channels_ + p_.channels);
      }
      multiply(pixels, in, channels_, channels_, matrix_, padded_, bias_, 0, out, padded_);
      for (int64_t i = 0; i < pixels; ++i) copy(out + i * padded_, p_.out_channels, to + i * p_.out.column);
    }
  }

 private:
  static constexpr int64_t TILE = 32;  // pixels, so that they stay in the nearest cache

  const Pointwise p_;
  const int64_t channels_, padded_;
  const Buffer matrix_;  // (in, out), the last padded
  const Buffer bias_;
};
