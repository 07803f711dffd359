// Gradients of the convolutional feed-forward network. Included once for each instruction set, inside its namespace.
//
// Rows of the image go through the chain forward and back again, one after the other: hidden channels are made anew,
// and no more than three rows of each kind are in memory.

#ifndef CONVATTN_NAMESPACE
#include "by_itself.h"
#include "simd.inl.h"
#include "matmul.inl.h"
#include "pixels.inl.h"
#include "gradients.inl.h"
#endif

template <class Number>
class FeedForwardGradientKernel {
 public:
  FeedForwardGradientKernel(const FeedForwardGradient<Number>& problem, int)
      : p_(problem),
        bands_((p_.height + HEIGHT - 1) / HEIGHT),
        span_(p_.width + 2),
        expand_(p_.channels, p_.hidden),
        expand_back_(p_.hidden, p_.channels),
        project_back_(p_.channels, p_.hidden),
        width_(expand_back_.columns),
        hidden_(expand_.columns),
        expand_bias_(p_.expand_bias, p_.hidden),
        depthwise_bias_(p_.depthwise_bias, p_.hidden),
        depthwise_(9 * hidden_),
        nothing_(std::max(width_, hidden_)),
        reader_(p_.norm, p_.channels),
        norm_(p_.norm, p_.channels),
        sums_(p_.images * bands_, Part::count(*this)) {
    std::fill(depthwise_ + 0, depthwise_ + 9 * hidden_, 0.0f);
    std::fill(nothing_ + 0, nothing_ + std::max(width_, hidden_), 0.0f);
    for (int64_t h = 0; h < p_.hidden; ++h) {
      for (int64_t c = 0; c < p_.channels; ++c) {
        const float expand = to_float(p_.expand_weight[h * p_.channels + c]);
        expand_.set(c, h, expand);
        expand_back_.set(h, c, expand);
        project_back_.set(c, h, to_float(p_.project_weight[c * p_.hidden + h]));
      }
      for (int tap = 0; tap < 9; ++tap) depthwise_[tap * hidden_ + h] = to_float(p_.depthwise_weight[9 * h + tap]);
    }
  }

  int64_t tasks() const { return sums_.parts; }

  void operator()(int64_t task) const {
    sums_.compute(task, [this](int64_t band, float* sums) {
      const int64_t top = band % bands_ * HEIGHT;
      Band(*this, band / bands_, sums).run(top, std::min(p_.height, top + HEIGHT));
    });
  }

  // Gradients of all parameters, one after the other.
  void finish() const {
    const Part sum(*this, sums_.total());
    float* to = unpad(sum.expand_weight, p_.hidden, p_.channels, width_, p_.sums);
    to = unpad(sum.expand_bias, 1, p_.hidden, hidden_, to);
    for (int64_t h = 0; h < p_.hidden; ++h)
      for (int tap = 0; tap < 9; ++tap) *to++ = sum.depthwise_weight[tap * hidden_ + h];
    to = unpad(sum.depthwise_bias, 1, p_.hidden, hidden_, to);
    for (int64_t c = 0; c < p_.channels; ++c)
      for (int64_t h = 0; h < p_.hidden; ++h) *to++ = sum.project_weight[h * width_ + c];
    to = unpad(sum.project_bias, 1, p_.channels, width_, to);
    norm_.unpad_sums(sum.norm, to);
  }

 private:
  using O = Operand<Number>;

  static constexpr int64_t HEIGHT = 64;  // of a band, around which two rows on either side are computed twice
  static constexpr int64_t TILE = 32;    // pixels that stay in the nearest cache from one product to the next

  // Where gradients of parameters are summed.
  struct Part {
    Part(const FeedForwardGradientKernel& a, float* at)
        : expand_weight(at),
          expand_bias(expand_weight + a.p_.hidden * a.width_),
          depthwise_weight(expand_bias + a.hidden_),
          depthwise_bias(depthwise_weight + 9 * a.hidden_),
          project_weight(depthwise_bias + a.hidden_),
          project_bias(project_weight + a.p_.hidden * a.width_),
          norm(project_bias + a.width_) {}

    static int64_t count(const FeedForwardGradientKernel& a) {
      return 2 * a.p_.hidden * a.width_ + 11 * a.hidden_ + a.width_ + a.norm_.sums();
    }

    float *expand_weight;     // (hidden, channels)
    float *expand_bias;
    float *depthwise_weight;  // (9, hidden)
    float *depthwise_bias;
    float *project_weight;    // (hidden, channels)
    float *project_bias;
    float *norm;
  };

  // Three rows, kept in turn, with a pixel of zeros on either side.
  template <class T>
  struct Rows {
    Rows(int64_t span, int64_t width) : size(span * width), width(width), data(3 * size + TILE * width) {
      std::memset(data, 0, (3 * size + TILE * width) * sizeof(T));
    }

    // From pixel −1 on.
    T* row(int64_t y) const { return data + (y + 3) % 3 * size; }
    T* at(int64_t y, int64_t x) const { return row(y) + (x + 1) * width; }
    void clear(int64_t y) const { std::memset(row(y), 0, size * sizeof(T)); }

    const int64_t size, width;
    const Buffer<T> data;
  };

  struct Band {
    Band(const FeedForwardGradientKernel& kernel, int64_t image, float* sums)
        : a(kernel),
          image(image),
          sum(a, sums),
          pixels(a.span_, a.width_),
          hidden(a.span_, a.hidden_),
          slopes(a.span_, a.hidden_),
          mixed_grads(a.span_, a.hidden_),
          depthwise_grads(a.span_, a.hidden_),
          tile(TILE * a.hidden_),
          wide(TILE * a.hidden_),
          narrow(TILE * a.width_),
          pixel_grads(TILE * a.width_),
          wide_stack(TILE, a.hidden_),
          narrow_stack(TILE, a.width_),
          scratch(std::max(a.reader_.scratch(), a.norm_.scratch())) {
      std::memset(narrow, 0, TILE * a.width_ * sizeof(O));
    }

    void run(int64_t top, int64_t bottom) {
      expand(top - 2);
      expand(top - 1);
      for (int64_t y = top - 1; y <= bottom; ++y) {
        expand(y + 1);
        mix(y, top <= y && y < bottom);
        if (y > top) finish(y - 1);
      }
    }

    bool outside(int64_t y) const { return y < 0 || y >= a.p_.height; }

    // h = gelu(expand(x)) of a row, and the slopes of gelu there.
    void expand(int64_t y) {
      if (outside(y)) return hidden.clear(y);
      for (int64_t x = 0; x < a.p_.width; ++x) a.reader_.read(a.p_.x.at(image, 0, y, x), scratch, pixels.at(y, x));
      for (int64_t x = 0; x < a.p_.width; x += TILE) {
        const int64_t count = std::min(TILE, a.p_.width - x);
        product(count, pixels.at(y, x), a.width_, a.expand_, a.expand_bias_, tile);
        float *values = hidden.at(y, x), *slope = slopes.at(y, x);
        for (int64_t i = 0; i < count * a.hidden_; i += LANES) {
          const Gelu result = gelu_and_slope(load(tile + i));
          store(values + i, result.value);
          store(slope + i, result.slope);
        }
      }
    }

    // The gradients of h + gelu(depthwise(h)), m for short, and through gelu of the depthwise convolution.
    void mix(int64_t y, bool counts) {
      if (outside(y)) return depthwise_grads.clear(y);
      for (int64_t x = 0; x < a.p_.width; x += TILE) {
        const int64_t count = std::min(TILE, a.p_.width - x);
        for (int64_t i = 0; i < count; ++i)
          copy(a.p_.grad.at(image, 0, y, x + i), a.p_.channels, narrow + i * a.width_);
        product(count, narrow, a.width_, a.project_back_, a.nothing_, tile);
        std::copy(tile + 0, tile + count * a.hidden_, mixed_grads.at(y, x));
        for (int64_t c = 0; c < a.hidden_; c += LANES)
          counts ? mix_channels<true>(y, x, count, c) : mix_channels<false>(y, x, count, c);
        if (!counts) continue;
        add_products_of_tile(count, narrow, sum.project_weight);
        add_pixels(count, narrow + 0, a.width_, sum.project_bias);
      }
    }

    // Leaves m in the wide tile.
    template <bool COUNTS>
    CONVATTN_INLINE void mix_channels(int64_t y, int64_t x, int64_t count, int64_t c) {
      const int64_t width = a.hidden_;
      const float* rows[3] = {hidden.at(y - 1, x - 1) + c, hidden.at(y, x - 1) + c, hidden.at(y + 1, x - 1) + c};
      const float* mixed_grad = mixed_grads.at(y, x) + c;
      float* to = depthwise_grads.at(y, x) + c;
      Vector weight[9], weight_sum[9] = {}, bias_sum = {};
      CONVATTN_UNROLL(9)
      for (int tap = 0; tap < 9; ++tap) weight[tap] = load(a.depthwise_ + tap * width + c);
      const Vector bias = load(a.depthwise_bias_ + c);
      for (int64_t i = 0; i < count; ++i) {
        Vector total[3] = {bias, {}, {}};
        CONVATTN_UNROLL(3)
        for (int r = 0; r < 3; ++r)
          CONVATTN_UNROLL(3)
          for (int j = 0; j < 3; ++j) total[r] += weight[3 * r + j] * load(rows[r] + (i + j) * width);
        const Gelu result = gelu_and_slope(total[0] + total[1] + total[2]);
        const Vector grad = result.slope * load(mixed_grad + i * width);
        store(to + i * width, grad);
        if (!COUNTS) continue;
        store(wide + i * width + c, load(rows[1] + (i + 1) * width) + result.value);
        bias_sum += grad;
        CONVATTN_UNROLL(3)
        for (int r = 0; r < 3; ++r)
          CONVATTN_UNROLL(3)
          for (int j = 0; j < 3; ++j) weight_sum[3 * r + j] += grad * load(rows[r] + (i + j) * width);
      }
      if (!COUNTS) return;
      store(sum.depthwise_bias + c, load(sum.depthwise_bias + c) + bias_sum);
      CONVATTN_UNROLL(9)
      for (int tap = 0; tap < 9; ++tap) {
        float* at = sum.depthwise_weight + tap * width + c;
        store(at, load(at) + weight_sum[tap]);
      }
    }

    // The gradients of the first convolution and of the pixels of a row.
    void finish(int64_t y) {
      for (int64_t x = 0; x < a.p_.width; x += TILE) {
        const int64_t count = std::min(TILE, a.p_.width - x);
        for (int64_t c = 0; c < a.hidden_; c += LANES) expand_grads(y, x, count, c);
        add_products_of_tile(count, pixels.at(y, x), sum.expand_weight);
        add_pixels(count, wide + 0, a.hidden_, sum.expand_bias);
        product(count, wide, a.hidden_, a.expand_back_, a.nothing_, pixel_grads);
        for (int64_t i = 0; i < count; ++i) {
          Number* to = a.p_.x_grad.data ? a.p_.x_grad.at(image, 0, y, x + i) : nullptr;
          a.norm_.write(a.p_.x.at(image, 0, y, x + i), pixel_grads + i * a.width_, scratch, sum.norm, to);
        }
      }
    }

    // The gradient of expand(x), into the wide tile: through m = h + …, through the depthwise convolution and gelu.
    CONVATTN_INLINE void expand_grads(int64_t y, int64_t x, int64_t count, int64_t c) {
      const int64_t width = a.hidden_;
      const float* rows[3] = {depthwise_grads.at(y + 1, x - 1) + c, depthwise_grads.at(y, x - 1) + c,
                              depthwise_grads.at(y - 1, x - 1) + c};
      const float *mixed_grad = mixed_grads.at(y, x) + c, *slope = slopes.at(y, x) + c;
      Vector weight[9];
      CONVATTN_UNROLL(9)
      for (int tap = 0; tap < 9; ++tap) weight[tap] = load(a.depthwise_ + tap * width + c);
      for (int64_t i = 0; i < count; ++i) {
        Vector total[3] = {load(mixed_grad + i * width), {}, {}};
        CONVATTN_UNROLL(3)
        for (int r = 0; r < 3; ++r)
          CONVATTN_UNROLL(3)
          for (int j = 0; j < 3; ++j) total[r] += weight[3 * r + j] * load(rows[r] + (i + 2 - j) * width);
        store(wide + i * width + c, (total[0] + total[1] + total[2]) * load(slope + i * width));
      }
    }

    // Add the products of the wide tile's channels with those of narrower pixels, (hidden, channels).
    void add_products_of_tile(int64_t count, const O* pixels, float* to) const {
      add_products(count, wide_stack(count, wide, a.hidden_, a.hidden_), a.p_.hidden,
                   narrow_stack(count, pixels, a.width_, a.width_), a.width_, to);
    }

    // What it reads and writes beyond the last pixel is memory of the buffers, but none of their pixels.
    static void product(int64_t count, const O* in, int64_t stride, const Matrix<O>& matrix, const float* start,
                        float* out) {
      multiply<O>(count, in, stride, matrix.depth, matrix.from(0), matrix.columns, start, 0, out, matrix.columns);
    }

    const FeedForwardGradientKernel& a;
    const int64_t image;
    const Part sum;
    const Rows<O> pixels;
    const Rows<float> hidden, slopes, mixed_grads, depthwise_grads;
    const Buffer<float> tile;         // (TILE, hidden)
    const Buffer<O> wide;             // (TILE, hidden)
    const Buffer<O> narrow;           // (TILE, channels)
    const Buffer<float> pixel_grads;  // (TILE, channels)
    const Stack<O> wide_stack, narrow_stack;
    const Buffer<float> scratch;
  };

  const FeedForwardGradient<Number> p_;
  const int64_t bands_, span_;
  Matrix<O> expand_, expand_back_, project_back_;
  const int64_t width_, hidden_;  // channels, padded
  const Parameter<Number> expand_bias_, depthwise_bias_;
  const Buffer<float> depthwise_;  // (9, hidden)
  const Buffer<float> nothing_;    // a pixel
  const Reader<Number> reader_;
  const NormGradient<Number> norm_;
  const Sums sums_;
};
