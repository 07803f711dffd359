// Pixels on their way from a map into products. Included once for each instruction set, inside its namespace.

#ifndef CONVATTN_NAMESPACE
#include "by_itself.h"
#include "simd.inl.h"
#include "matmul.inl.h"
#endif

// Floats of a parameter, padded with zeros to whole vectors.
template <class Number>
class Parameter : public Buffer<float> {
 public:
  Parameter(const Number* from, int64_t count) : Buffer<float>(round_up(count, LANES)) {
    std::fill(*this + 0, *this + round_up(count, LANES), 0.0f);
    if (from) copy(from, count, *this + 0);
  }
};

template <class Number>
CONVATTN_INLINE void add(const Number* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) store(to + i, load(to + i) + load(from + i));
  for (; i < count; ++i) to[i] += to_float(from[i]);
}

// Reads pixels, normalized where that is wanted.
template <class Number>
class Reader {
 public:
  Reader(const Norm<Number>& norm, int64_t channels)
      : normalizes_(norm.weight),
        epsilon_(static_cast<float>(norm.epsilon)),
        channels_(channels),
        padded_(round_up(channels, LANES)),
        weight_(norm.weight, channels),
        bias_(norm.bias, channels) {}

  // How many floats the second argument has room for.
  int64_t scratch() const { return padded_; }

  template <class O>
  CONVATTN_INLINE void read(const Number* from, float* scratch, O* to) const {
    if (!normalizes_) return copy(from, channels_, to);
    for (int64_t c = padded_ - LANES; c < padded_; ++c) scratch[c] = 0;
    copy(from, channels_, scratch);
    Vector sum = {}, square = {};
    for (int64_t c = 0; c < padded_; c += LANES) sum += load(scratch + c);
    const float mean = sum_of(sum) / channels_;
    for (int64_t c = 0; c < padded_; c += LANES) store(scratch + c, load(scratch + c) - mean);
    for (int64_t c = channels_; c < padded_; ++c) scratch[c] = 0;
    for (int64_t c = 0; c < padded_; c += LANES) square += load(scratch + c) * load(scratch + c);
    const float factor = 1 / std::sqrt(sum_of(square) / channels_ + epsilon_);
    for (int64_t c = 0; c < padded_; c += LANES)
      store(scratch + c, load(scratch + c) * factor * load(weight_ + c) + load(bias_ + c));
    copy(scratch, channels_, to);
  }

 private:
  const bool normalizes_;
  const float epsilon_;
  const int64_t channels_, padded_;
  const Parameter<Number> weight_, bias_;
};
