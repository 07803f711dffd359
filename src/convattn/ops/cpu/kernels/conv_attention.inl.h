// Convolutional attention. Included once for each instruction set, inside its namespace.
//
// A kernel that is symmetric under all flips and rotations gives mirrored taps one weight, so pixels at mirrored
// taps are added first: a 13×13 kernel needs 28 products in place of 169.

#ifndef CONVATTN_NAMESPACE
#include "by_itself.h"
#include "simd.inl.h"
#include "matmul.inl.h"
#include "pixels.inl.h"
#endif

template <class Number, class O = Operand<Number>>
class ConvAttentionKernel {
 public:
  ConvAttentionKernel(const ConvAttention<Number>& problem, int threads)
      : p_(problem),
        radius_(p_.size / 2),
        reach_(std::max(p_.size, p_.dynamic_size) / 2),
        tile_(round_up(std::min<int64_t>(p_.width, TILE), PIXELS)),
        tiles_((p_.width + tile_ - 1) / tile_),
        height_(rows_at_once(p_.height, HEIGHT, p_.images * tiles_, threads)),
        bands_((p_.height + height_ - 1) / height_),
        depth_(round_up(p_.channels, TOGETHER<O>)),
        matrix_((radius_ + 1) * (radius_ + 2) / 2 * depth_, p_.channels),
        stride_(matrix_.depth + LANES),
        area_(p_.dynamic_size * p_.dynamic_size),
        dynamic_(p_.images * area_ * matrix_.columns) {
    pack();
    std::fill(dynamic_ + 0, dynamic_ + p_.images * area_ * matrix_.columns, 0.0f);
    p_.dynamic_kernel ? pack_dynamic() : predict_dynamic(threads);
  }

  int64_t tasks() const { return p_.images * bands_ * tiles_; }

  void operator()(int64_t task) const {
    const int64_t tile = task % tiles_, band = (task /= tiles_) % bands_;
    Tile rows(*this, task / bands_, tile * tile_);
    rows.convolve(band * height_, std::min(p_.height, (band + 1) * height_));
  }

 protected:
  // Pixels, whose surroundings stay in the cache from one row to the next.
  static constexpr int64_t TILE = 64, HEIGHT = 32;

  // One octant of the kernel, (taps, in) to out.
  void pack() {
    for (int64_t out = 0; out < p_.channels; ++out)
      for (int64_t in = 0; in < p_.channels; ++in) {
        const Number* center = p_.large_kernel + (out * p_.channels + in) * p_.size * p_.size + radius_ * (p_.size + 1);
        for (int64_t dy = 0, tap = 0; dy <= radius_; ++dy)
          for (int64_t dx = 0; dx <= dy; ++dx, ++tap)
            matrix_.set(tap * depth_ + in, out, to_float(center[dy * p_.size + dx]));
      }
  }

  void pack_dynamic() {
    for (int64_t image = 0; image < p_.images; ++image)
      for (int64_t i = 0; i < p_.channels * area_; ++i)
        weight(image, i) = to_float(p_.dynamic_kernel[image * p_.channels * area_ + i]);
  }

  // Rows are summed by themselves, so that the result does not depend on who sums which.
  void predict_dynamic(int threads) {
    const int64_t width = matrix_.columns, hidden_width = round_up(p_.hidden, LANES);
    const Buffer<float> rows(p_.images * p_.height * width), hidden(hidden_width);
    parallel_for(p_.images * p_.height, threads, [&](int64_t row) { sum_row(row, rows + row * width); });
    std::vector<double> average(p_.channels);
    std::fill(hidden + 0, hidden + hidden_width, 0.0f);
    for (int64_t image = 0; image < p_.images; ++image) {
      std::fill(average.begin(), average.end(), 0.0);
      for (int64_t y = 0; y < p_.height; ++y)
        for (int64_t c = 0; c < p_.channels; ++c) average[c] += rows[(image * p_.height + y) * width + c];
      for (double& sum : average) sum /= static_cast<double>(p_.height * p_.width);
      for (int64_t j = 0; j < p_.hidden; ++j)
        hidden[j] = layer(p_.reduce_weight, p_.reduce_bias, j, average.data(), p_.channels);
      for (int64_t j = 0; j < hidden_width; j += LANES) store(hidden + j, gelu(load(hidden + j)));
      for (int64_t i = 0; i < p_.channels * area_; ++i)
        weight(image, i) = layer(p_.expand_weight, p_.expand_bias, i, hidden + 0, p_.hidden);
    }
  }

  void sum_row(int64_t row, float* to) const {
    const int64_t image = row / p_.height, y = row % p_.height;
    std::fill(to, to + matrix_.columns, 0.0f);
    for (int64_t x = 0; x < p_.width; ++x) add(p_.x.at(image, 0, y, x), p_.channels, to);
  }

  // One output of a layer.
  template <class In>
  static float layer(const Number* weight, const Number* bias, int64_t out, const In* in, int64_t count) {
    double sum = to_float(bias[out]);
    for (int64_t i = 0; i < count; ++i) sum += to_float(weight[out * count + i]) * in[i];
    return static_cast<float>(sum);
  }

  // Number i of an image's dynamic kernel, (channels, taps), where tiles read it.
  float& weight(int64_t image, int64_t i) {
    return dynamic_[(image * area_ + i % area_) * matrix_.columns + i / area_];
  }

  struct Tile {
    Tile(const ConvAttentionKernel& kernel, int64_t image, int64_t left)
        : a(kernel),
          image(image),
          left(left),
          pixels(std::min(a.tile_, a.p_.width - left)),
          span(a.tile_ + 2 * a.reach_),
          width(a.matrix_.columns),
          rows((2 * a.reach_ + 1) * span * width),
          folded((a.radius_ + 1) * span * width),
          products(PIXELS * a.stride_),
          sums(PIXELS * width),
          dynamic(a.dynamic_ + image * a.area_ * width) {
      std::fill(rows + 0, rows + (2 * a.reach_ + 1) * span * width, 0.0f);  // and what is outside the image stays so
    }

    void convolve(int64_t top, int64_t bottom) {
      begin(top);
      for (int64_t y = top; y < bottom; ++y) {
        advance(y);
        for (int64_t x = 0; x < pixels; x += PIXELS) {
          apply_dynamic(y, x);
          apply_large(x);
          for (int64_t p = 0; p < std::min<int64_t>(PIXELS, pixels - x); ++p)
            copy(sums + p * width, a.p_.channels, a.p_.out.at(image, 0, y, left + x + p));
        }
      }
    }

    void begin(int64_t top) const {
      for (int64_t y = top - a.reach_; y < top + a.reach_; ++y) read(y);
    }

    // To a row, after the one before it: its surroundings are read, and mirrored rows added.
    void advance(int64_t y) const {
      read(y + a.reach_);
      copy(row(y), span * width, folded + 0);
      for (int64_t dy = 1; dy <= a.radius_; ++dy) add_rows(row(y - dy), row(y + dy), folded + dy * span * width);
    }

    float* row(int64_t y) const {
      const int64_t count = 2 * a.reach_ + 1;
      return rows + (y + count) % count * span * width;
    }

    // Pixels left − reach … left − reach + span, as far as the image goes.
    void read(int64_t y) const {
      if (y < 0 || y >= a.p_.height) {
        std::fill(row(y), row(y) + span * width, 0.0f);
        return;
      }
      const int64_t start = left - a.reach_;
      for (int64_t x = std::max<int64_t>(0, -start); x < std::min(span, a.p_.width - start); ++x)
        copy(a.p_.x.at(image, 0, y, start + x), a.p_.channels, row(y) + x * width);
    }

    void add_rows(const float* row, const float* other, float* to) const {
      const int64_t count = span * width;
      for (int64_t i = 0; i < count; i += LANES) store(to + i, load(row + i) + load(other + i));
    }

    void apply_dynamic(int64_t y, int64_t x) {
      const int64_t size = a.p_.dynamic_size, offset = a.reach_ - size / 2;
      for (int64_t c = 0; c < width; c += LANES) {
        Vector sum[PIXELS] = {};
        for (int64_t i = 0; i < size; ++i) {
          const float* pixel = row(y + i - size / 2) + (x + offset) * width + c;
          for (int64_t j = 0; j < size; ++j, pixel += width) {
            const Vector weight = load(dynamic + (i * size + j) * width + c);
            CONVATTN_UNROLL(16)
            for (int p = 0; p < PIXELS; ++p) sum[p] += weight * load(pixel + p * width);
          }
        }
        CONVATTN_UNROLL(16)
        for (int p = 0; p < PIXELS; ++p) store(sums + p * width + c, sum[p]);
      }
    }

    void apply_large(int64_t x) {
      add_mirrored_taps(x);
      multiply<O>(PIXELS, products, a.stride_, a.matrix_.depth, a.matrix_.from(0), width, sums, width, sums, width);
    }

    // Tap (dy, dx) of the octant stands for (±dy, ±dx) and (±dx, ±dy).
    void add_mirrored_taps(int64_t x) {
      O* to = products;
      for (int64_t dy = 0; dy <= a.radius_; ++dy)
        for (int64_t dx = 0; dx <= dy; ++dx, to += a.depth_) {
          if (dx < dy) {
            dx ? add_mirrored<true, true>(dy, dx, x, to) : add_mirrored<false, true>(dy, dx, x, to);
          } else {
            dx ? add_mirrored<true, false>(dy, dx, x, to) : add_mirrored<false, false>(dy, dx, x, to);
          }
        }
    }

    // What is too much after the last channel is overwritten by the next tap, or lies before the next pixel.
    template <bool ASIDE, bool OFF_DIAGONAL>
    CONVATTN_INLINE void add_mirrored(int64_t dy, int64_t dx, int64_t x, O* to) const {
      const int64_t step = width, stride = a.stride_, channels = a.p_.channels;  // read once, not after every store
      const float* center = folded + (x + a.reach_) * step;
      for (int64_t c = 0; c < channels; c += LANES) {
        const float* right = center + (dy * span + dx) * step + c;
        const float* left = right - 2 * dx * step;
        const float* far_right = center + (dx * span + dy) * step + c;
        const float* far_left = far_right - 2 * dy * step;
        CONVATTN_UNROLL(4)
        for (int64_t p = 0; p < PIXELS; ++p) {
          Vector sum = load(right + p * step);
          if (ASIDE) sum += load(left + p * step);
          if (OFF_DIAGONAL) sum += load(far_right + p * step) + load(far_left + p * step);
          store(to + p * stride + c, sum);
        }
      }
    }

    const ConvAttentionKernel& a;
    const int64_t image, left, pixels, span;
    const int64_t width;          // channels, padded
    const Buffer<float> rows;     // (2 reach + 1, span, channels)
    const Buffer<float> folded;   // (radius + 1, span, channels)
    const Buffer<O> products;     // (PIXELS, taps · channels + LANES)
    const Buffer<float> sums;     // (PIXELS, channels)
    const float* dynamic;         // (dynamic_size², channels)
  };

  const ConvAttention<Number> p_;
  const int64_t radius_, reach_, tile_, tiles_, height_, bands_;
  const int64_t depth_;  // channels, padded
  Matrix<O> matrix_;
  const int64_t stride_;  // of a pixel among the products
  const int64_t area_;    // of a dynamic kernel
  const Buffer<float> dynamic_;  // (images, dynamic_size², channels)
};
