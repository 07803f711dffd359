// Convolutional attention. Included once for each instruction set, inside its namespace.
//
// A kernel that is symmetric under all flips and rotations gives mirrored taps one weight, so pixels at mirrored
// taps are added first: a 13×13 kernel needs 28 products in place of 169.

template <class Number>
class ConvAttentionKernel {
 public:
  ConvAttentionKernel(const ConvAttention<Number>& problem, int threads)
      : p_(problem),
        radius_(p_.size / 2),
        tile_(round_up(std::min<int64_t>(p_.width, TILE), PIXELS)),
        tiles_((p_.width + tile_ - 1) / tile_),
        height_(rows_at_once(p_.height, HEIGHT, p_.pictures * tiles_, threads)),
        bands_((p_.height + height_ - 1) / height_),
        depth_(round_up(p_.channels, TOGETHER<O>)),
        matrix_((radius_ + 1) * (radius_ + 2) / 2 * depth_, p_.channels),
        stride_(matrix_.depth + LANES) {
    pack();
  }

  int64_t tasks() const { return p_.pictures * bands_ * tiles_; }

  void operator()(int64_t task) const {
    const int64_t tile = task % tiles_, band = (task /= tiles_) % bands_;
    Tile rows(*this, task / bands_, tile * tile_);
    for (int64_t y = band * height_; y < std::min(p_.height, (band + 1) * height_); ++y) rows.convolve(y);
  }

 private:
  using O = Operand<Number>;

  // Pixels, whose surroundings stay in the cache from one row to the next.
  static constexpr int64_t TILE = 64, HEIGHT = 32;
  static constexpr int64_t OUTSIDE = -1;  // a row

  // One octant of the kernel, (taps, in) to out.
  void pack() {
    for (int64_t out = 0; out < p_.channels; ++out)
      for (int64_t in = 0; in < p_.channels; ++in) {
        const Number* centre = p_.large_kernel + (out * p_.channels + in) * p_.size * p_.size + radius_ * (p_.size + 1);
        for (int64_t dy = 0, tap = 0; dy <= radius_; ++dy)
          for (int64_t dx = 0; dx <= dy; ++dx, ++tap)
            matrix_.set(tap * depth_ + in, out, to_float(centre[dy * p_.size + dx]));
      }
  }

  struct Tile {
    Tile(const ConvAttentionKernel& kernel, int64_t picture, int64_t left)
        : a(kernel),
          picture(picture),
          left(left),
          pixels(std::min(a.tile_, a.p_.width - left)),
          span(a.tile_ + 2 * a.radius_),
          width(a.matrix_.columns),
          near(a.p_.dynamic_size * span * width),
          folded((a.radius_ + 1) * span * width),
          products(PIXELS * a.stride_),
          sums(PIXELS * width),
          dynamic(a.p_.dynamic_size * a.p_.dynamic_size * width),
          nothing(a.p_.channels) {
      std::fill(near + 0, near + a.p_.dynamic_size * span * width, 0.0f);  // and what is outside the picture stays so
      std::fill(folded + 0, folded + (a.radius_ + 1) * span * width, 0.0f);
      std::memset(nothing, 0, a.p_.channels * sizeof(Number));
      pack_dynamic();
    }

    // (taps, channels)
    void pack_dynamic() {
      const int64_t area = a.p_.dynamic_size * a.p_.dynamic_size;
      const Number* kernel = a.p_.dynamic_kernel + picture * a.p_.channels * area;
      std::fill(dynamic + 0, dynamic + area * width, 0.0f);
      for (int64_t c = 0; c < a.p_.channels; ++c)
        for (int64_t tap = 0; tap < area; ++tap) dynamic[tap * width + c] = to_float(kernel[c * area + tap]);
    }

    void convolve(int64_t y) {
      for (int64_t i = 0; i < a.p_.dynamic_size; ++i)
        add_rows(y + i - a.p_.dynamic_size / 2, OUTSIDE, near + i * span * width);
      add_rows(y, OUTSIDE, folded);
      for (int64_t dy = 1; dy <= a.radius_; ++dy) add_rows(y - dy, y + dy, folded + dy * span * width);
      for (int64_t x = 0; x < pixels; x += PIXELS) {
        apply_dynamic(x);
        apply_large(x);
        for (int64_t p = 0; p < std::min<int64_t>(PIXELS, pixels - x); ++p)
          copy(sums + p * width, a.p_.channels, a.p_.out.at(picture, 0, y, left + x + p));
      }
    }

    // The sum of two rows, of which pixels left − radius … left − radius + span are read as far as the picture reaches.
    void add_rows(int64_t y, int64_t other_y, float* to) const {
      const int64_t start = left - a.radius_;
      const int64_t first = std::max<int64_t>(0, -start), last = std::min(span, a.p_.width - start);
      const auto row = [&](int64_t y) {
        const bool inside = 0 <= y && y < a.p_.height;
        return std::pair(inside ? a.p_.x.at(picture, 0, y, start + first) : nothing + 0, inside ? a.p_.x.column : 0);
      };
      auto [from, step] = row(y);
      auto [other, other_step] = row(other_y);
      for (int64_t x = first; x < last; ++x, from += step, other += other_step) {
        float* pixel = to + x * width;
        int64_t c = 0;
        for (; c + LANES <= a.p_.channels; c += LANES) store(pixel + c, load(from + c) + load(other + c));
        for (; c < a.p_.channels; ++c) pixel[c] = to_float(from[c]) + to_float(other[c]);
      }
    }

    void apply_dynamic(int64_t x) {
      const int64_t size = a.p_.dynamic_size, offset = a.radius_ - size / 2;
      for (int64_t c = 0; c < width; c += LANES) {
        Vector sum[PIXELS] = {};
        for (int64_t i = 0; i < size; ++i)
          for (int64_t j = 0; j < size; ++j) {
            const Vector weight = load(dynamic + (i * size + j) * width + c);
            const float* from = near + (i * span + x + offset + j) * width + c;
            UNROLL(16)
            for (int p = 0; p < PIXELS; ++p) sum[p] += weight * load(from + p * width);
          }
        UNROLL(16)
        for (int p = 0; p < PIXELS; ++p) store(sums + p * width + c, sum[p]);
      }
    }

    // Tap (dy, dx) of the octant stands for (±dy, ±dx) and (±dx, ±dy).
    void apply_large(int64_t x) {
      O* to = products;
      for (int64_t dy = 0; dy <= a.radius_; ++dy)
        for (int64_t dx = 0; dx <= dy; ++dx, to += a.depth_) {
          if (dx < dy) {
            dx ? add_mirrored<true, true>(dy, dx, x, to) : add_mirrored<false, true>(dy, dx, x, to);
          } else {
            dx ? add_mirrored<true, false>(dy, dx, x, to) : add_mirrored<false, false>(dy, dx, x, to);
          }
        }
      multiply<O>(PIXELS, products, a.stride_, a.matrix_.depth, a.matrix_.from(0), width, sums, width, sums, width);
    }

    // What is too much after the last channel is overwritten by the next tap, or lies before the next pixel.
    template <bool ASIDE, bool OFF_DIAGONAL>
    INLINE void add_mirrored(int64_t dy, int64_t dx, int64_t x, O* to) const {
      const int64_t centre = (x + a.radius_) * width;
      for (int64_t c = 0; c < a.p_.channels; c += LANES) {
        const float* right = folded + dy * span * width + centre + dx * width + c;
        const float* left = right - 2 * dx * width;
        const float* far_right = folded + dx * span * width + centre + dy * width + c;
        const float* far_left = far_right - 2 * dy * width;
        UNROLL(4)
        for (int64_t p = 0; p < PIXELS; ++p) {
          Vector sum = load(right + p * width);
          if (ASIDE) sum += load(left + p * width);
          if (OFF_DIAGONAL) sum += load(far_right + p * width) + load(far_left + p * width);
          store(to + p * a.stride_ + c, sum);
        }
      }
    }

    const ConvAttentionKernel& a;
    const int64_t picture, left, pixels, span;
    const int64_t width;           // channels, padded
    const Buffer<float> near;      // (dynamic_size, span, channels)
    const Buffer<float> folded;    // (radius + 1, span, channels)
    const Buffer<O> products;      // (PIXELS, taps · channels + LANES)
    const Buffer<float> sums;      // (PIXELS, channels)
    const Buffer<float> dynamic;   // (dynamic_size², channels)
    const Buffer<Number> nothing;  // a pixel
  };

  const ConvAttention<Number> p_;
  const int64_t radius_, tile_, tiles_, height_, bands_;
  const int64_t depth_;  // channels, padded
  Matrix<O> matrix_;
  const int64_t stride_;  // of a pixel among the products
};
