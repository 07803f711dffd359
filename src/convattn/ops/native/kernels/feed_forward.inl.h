// The convolutional feed-forward network. Included once for each instruction set, inside its namespace.
//
// Strips of the picture go through the whole chain, so that hidden channels stay in the cache: three rows of them
// are all that the depthwise convolution needs at a time.

class FeedForwardKernel {
 public:
  explicit FeedForwardKernel(const FeedForward& problem)
      : p_(problem),
        hidden_(round_up(p_.hidden, LANES)),
        channels_(round_up(p_.channels, LANES)),
        tiles_((p_.width + WIDEST - 1) / WIDEST),
        bands_((p_.height + HEIGHT - 1) / HEIGHT),
        width_((p_.width + tiles_ - 1) / tiles_),
        span_(round_up(width_ + 2, PIXELS)),
        expand_((p_.channels + 1) * hidden_),
        depthwise_(10 * hidden_),
        project_((p_.hidden + 1) * channels_) {
    transpose(p_.expand_weight, p_.expand_bias, p_.hidden, p_.channels, expand_, hidden_);
    transpose(p_.depthwise_weight, p_.depthwise_bias, p_.hidden, 9, depthwise_, hidden_);
    transpose(p_.project_weight, p_.project_bias, p_.channels, p_.hidden, project_, channels_);
  }

  int64_t tasks() const { return p_.pictures * bands_ * tiles_; }

  void operator()(int64_t task) const {
    const int64_t tile = task % tiles_, band = (task /= tiles_) % bands_;
    Strip strip(*this, task / bands_, tile * width_);
    strip.run(band * HEIGHT, std::min(p_.height, (band + 1) * HEIGHT));
  }

 private:
  // Pixels of a strip. Those around it are computed twice.
  static constexpr int64_t WIDEST = 128, HEIGHT = 32;

  // (out, in) to (in, out) with padded rows, and the bias as a last row.
  static void transpose(const float* weight, const float* bias, int64_t out, int64_t in, float* to, int64_t padded) {
    std::fill(to, to + (in + 1) * padded, 0.0f);
    for (int64_t i = 0; i < out; ++i) {
      for (int64_t j = 0; j < in; ++j) to[j * padded + i] = weight[i * in + j];
      to[in * padded + i] = bias[i];
    }
  }

  struct Strip {
    Strip(const FeedForwardKernel& kernel, int64_t picture, int64_t left)
        : a(kernel),
          picture(picture),
          left(left),
          first(left > 0 ? 0 : 1),
          last(std::min(a.width_ + 2, a.p_.width + 1 - left)),
          in(a.span_ * a.p_.channels),
          hidden(3 * a.span_ * a.hidden_),
          mixed(a.span_ * a.hidden_),
          out(a.span_ * a.channels_) {
      std::fill(in + 0, in + a.span_ * a.p_.channels, 0.0f);
      std::fill(mixed + 0, mixed + a.span_ * a.hidden_, 0.0f);
    }

    void run(int64_t top, int64_t bottom) {
      expand(top - 1);
      expand(top);
      for (int64_t y = top; y < bottom; ++y) {
        expand(y + 1);
        mix(y);
        project(y);
      }
    }

    float* row(int64_t y) const { return hidden + (y + 3) % 3 * a.span_ * a.hidden_; }

    // gelu(expand(x)) of pixels left − 1 … left + width; outside the picture hidden channels are zero.
    void expand(int64_t y) {
      float* to = row(y);
      const int64_t channels = a.p_.channels;
      if (y < 0 || y >= a.p_.height) {
        std::fill(to, to + a.span_ * a.hidden_, 0.0f);
        return;
      }
      for (int64_t x = first; x < last; ++x)
        copy(a.p_.x.at(picture, 0, y, left - 1 + x), channels, in + x * channels);
      const float* bias = a.expand_ + channels * a.hidden_;
      multiply(last, in, channels, channels, a.expand_, a.hidden_, bias, 0, to, a.hidden_);
      for (int64_t i = first * a.hidden_; i < last * a.hidden_; i += LANES) store(to + i, gelu(load(to + i)));
      std::fill(to, to + first * a.hidden_, 0.0f);
      std::fill(to + last * a.hidden_, to + a.span_ * a.hidden_, 0.0f);
    }

    // h + gelu(depthwise(h)) of pixels left … left + width.
    void mix(int64_t y) {
      const float* rows[3] = {row(y - 1), row(y), row(y + 1)};
      for (int64_t c = 0; c < a.hidden_; c += LANES) {
        Vector weight[9];
        UNROLL(9)
        for (int tap = 0; tap < 9; ++tap) weight[tap] = load(a.depthwise_ + tap * a.hidden_ + c);
        const Vector bias = load(a.depthwise_ + 9 * a.hidden_ + c);
        for (int64_t x = 0; x < a.width_; ++x) {
          Vector sum[3] = {bias, {}, {}};
          UNROLL(3)
          for (int i = 0; i < 3; ++i)
            UNROLL(3)
            for (int j = 0; j < 3; ++j) sum[i] += weight[3 * i + j] * load(rows[i] + (x + j) * a.hidden_ + c);
          const Vector h = load(rows[1] + (x + 1) * a.hidden_ + c);
          store(mixed + x * a.hidden_ + c, h + gelu(sum[0] + sum[1] + sum[2]));
        }
      }
    }

    void project(int64_t y) {
      const float* bias = a.project_ + a.p_.hidden * a.channels_;
      multiply(a.width_, mixed, a.hidden_, a.p_.hidden, a.project_, a.channels_, bias, 0, out, a.channels_);
      const int64_t pixels = std::min(a.width_, a.p_.width - left);
      for (int64_t x = 0; x < pixels; ++x)
        copy(out + x * a.channels_, a.p_.channels, a.p_.out.at(picture, 0, y, left + x));
    }

    const FeedForwardKernel& a;
    const int64_t picture, left;
    const int64_t first, last;  // pixels of the span that lie in the picture
    Buffer in;      // (span, channels)
    Buffer hidden;  // (3 rows, span, hidden)
    Buffer mixed;   // (span, hidden)
    Buffer out;     // (span, channels)
  };

  const FeedForward p_;
  const int64_t hidden_, channels_;  // padded
  const int64_t tiles_, bands_, width_, span_;
  const Buffer expand_, depthwise_, project_;
};
