// The convolutional feed-forward network. Included once for each instruction set, inside its namespace.
//
// Strips of the image go through the whole chain, so that hidden channels stay in the cache: three rows of them
// are all that the depthwise convolution needs at a time.

#ifndef CONVATTN_NAMESPACE
#include "by_itself.h"
#include "simd.inl.h"
#include "matmul.inl.h"
#include "pixels.inl.h"
#endif

template <class Number>
class FeedForwardKernel {
 public:
  FeedForwardKernel(const FeedForward<Number>& problem, int threads)
      : p_(problem),
        tiles_((p_.width + WIDEST - 1) / WIDEST),
        height_(rows_at_once(p_.height, HEIGHT, p_.images * tiles_, threads)),
        bands_((p_.height + height_ - 1) / height_),
        width_((p_.width + tiles_ - 1) / tiles_),
        span_(round_up(width_ + 2, TILE)),
        expand_(p_.channels, p_.hidden),
        project_(p_.hidden, p_.channels),
        hidden_(expand_.columns),
        expand_bias_(p_.expand_bias, p_.hidden),
        depthwise_bias_(p_.depthwise_bias, p_.hidden),
        project_bias_(p_.project_bias, p_.channels),
        depthwise_(9 * hidden_),
        reader_(p_.norm, p_.channels) {
    std::fill(depthwise_ + 0, depthwise_ + 9 * hidden_, 0.0f);
    for (int64_t h = 0; h < p_.hidden; ++h) {
      for (int64_t c = 0; c < p_.channels; ++c) {
        expand_.set(c, h, to_float(p_.expand_weight[h * p_.channels + c]));
        project_.set(h, c, to_float(p_.project_weight[c * p_.hidden + h]));
      }
      for (int tap = 0; tap < 9; ++tap) depthwise_[tap * hidden_ + h] = to_float(p_.depthwise_weight[9 * h + tap]);
    }
  }

  int64_t tasks() const { return p_.images * bands_ * tiles_; }

  void operator()(int64_t task) const {
    const int64_t tile = task % tiles_, band = (task /= tiles_) % bands_;
    Strip strip(*this, task / bands_, tile * width_);
    strip.run(band * height_, std::min(p_.height, (band + 1) * height_));
  }

 private:
  using O = Operand<Number>;

  // Pixels of a strip. Those around it are computed twice.
  static constexpr int64_t WIDEST = 128, HEIGHT = 256;
  static constexpr int64_t TILE = 32;  // pixels that stay in the nearest cache from one product to the next

  struct Strip {
    Strip(const FeedForwardKernel& kernel, int64_t image, int64_t left)
        : a(kernel),
          image(image),
          left(left),
          first(left > 0 ? 0 : 1),
          last(std::min(a.width_ + 2, a.p_.width + 1 - left)),
          scratch(a.reader_.scratch()),
          in(TILE * a.expand_.depth),
          hidden(3 * a.span_ * a.hidden_),
          mixed(TILE * a.hidden_),
          out(TILE * a.project_.columns) {
      std::memset(in, 0, TILE * a.expand_.depth * sizeof(O));
      std::memset(mixed, 0, TILE * a.hidden_ * sizeof(O));
    }

    void run(int64_t top, int64_t bottom) {
      expand(top - 1);
      expand(top);
      for (int64_t y = top; y < bottom; ++y) {
        expand(y + 1);
        const int64_t width = std::min(a.width_, a.p_.width - left);
        for (int64_t x = 0; x < width; x += TILE) {
          const int64_t pixels = std::min(TILE, width - x);
          mix(y, x, pixels);
          project(y, x, pixels);
        }
      }
    }

    float* row(int64_t y) const { return hidden + (y + 3) % 3 * a.span_ * a.hidden_; }

    // gelu(expand(x)) of pixels left − 1 … left + width; outside the image hidden channels are zero.
    void expand(int64_t y) {
      float* to = row(y);
      const int64_t width = a.hidden_, depth = a.expand_.depth;
      if (y < 0 || y >= a.p_.height) {
        std::fill(to, to + a.span_ * width, 0.0f);
        return;
      }
      for (int64_t start = 0; start < last; start += TILE) {
        const int64_t pixels = std::min(TILE, last - start);
        for (int64_t i = start ? 0 : first; i < pixels; ++i)
          a.reader_.read(a.p_.x.at(image, 0, y, left - 1 + start + i), scratch, in + i * depth);
        float* tile = to + start * width;
        multiply<O>(pixels, in, depth, depth, a.expand_.from(0), width, a.expand_bias_, 0, tile, width);
        for (int64_t i = 0; i < pixels * width; i += LANES) store(tile + i, gelu(load(tile + i)));
      }
      std::fill(to, to + first * width, 0.0f);
      std::fill(to + last * width, to + a.span_ * width, 0.0f);
    }

    // h + gelu(depthwise(h)) of some pixels from left + start on.
    void mix(int64_t y, int64_t start, int64_t pixels) {
      const int64_t width = a.hidden_;
      const float* rows[3] = {row(y - 1) + start * width, row(y) + start * width, row(y + 1) + start * width};
      for (int64_t c = 0; c < width; c += LANES) {
        Vector weight[9];
        CONVATTN_UNROLL(9)
        for (int tap = 0; tap < 9; ++tap) weight[tap] = load(a.depthwise_ + tap * width + c);
        const Vector bias = load(a.depthwise_bias_ + c);
        for (int64_t x = 0; x < pixels; ++x) {
          Vector sum[3] = {bias, {}, {}};
          CONVATTN_UNROLL(3)
          for (int i = 0; i < 3; ++i)
            CONVATTN_UNROLL(3)
            for (int j = 0; j < 3; ++j) sum[i] += weight[3 * i + j] * load(rows[i] + (x + j) * width + c);
          const Vector h = load(rows[1] + (x + 1) * width + c);
          store(mixed + x * width + c, h + gelu(sum[0] + sum[1] + sum[2]));
        }
      }
    }

    void project(int64_t y, int64_t start, int64_t pixels) {
      const int64_t columns = a.project_.columns;
      multiply<O>(pixels, mixed, a.hidden_, a.project_.depth, a.project_.from(0), columns, a.project_bias_, 0, out,
                  columns);
      for (int64_t x = 0; x < pixels; ++x)
        copy(out + x * columns, a.p_.channels, a.p_.out.at(image, 0, y, left + start + x));
    }

    const FeedForwardKernel& a;
    const int64_t image, left;
    const int64_t first, last;  // pixels of the span that lie in the image
    const Buffer<float> scratch;
    const Buffer<O> in;          // (TILE, channels)
    const Buffer<float> hidden;  // (3 rows, span, hidden)
    const Buffer<O> mixed;       // (TILE, hidden)
    const Buffer<float> out;     // (TILE, channels)
  };

  const FeedForward<Number> p_;
  const int64_t tiles_, height_, bands_, width_, span_;
  Matrix<O> expand_, project_;
  const int64_t hidden_;  // padded
  const Parameter<Number> expand_bias_, depthwise_bias_, project_bias_;
  const Buffer<float> depthwise_;  // (9, hidden)
  const Reader<Number> reader_;
};
