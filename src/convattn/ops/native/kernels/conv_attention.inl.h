// Convolutional attention. Included once for each instruction set, inside its namespace.
//
// A kernel that is symmetric under all flips and rotations gives mirrored taps one weight, so pixels at mirrored
// taps are added first: a 13×13 kernel needs 28 products in place of 169.

template <class Number>
class ConvAttentionKernel {
 public:
  explicit ConvAttentionKernel(const ConvAttention<Number>& problem)
      : p_(problem),
        radius_(p_.size / 2),
        tile_(round_up(std::min<int64_t>(p_.width, TILE), PIXELS)),
        tiles_((p_.width + tile_ - 1) / tile_),
        bands_((p_.height + HEIGHT - 1) / HEIGHT),
        depth_(round_up(p_.channels, TOGETHER<O>)),
        matrix_((radius_ + 1) * (radius_ + 2) / 2 * depth_, p_.channels) {
    pack();
  }

  int64_t tasks() const { return p_.pictures * bands_ * tiles_; }

  void operator()(int64_t task) const {
    const int64_t tile = task % tiles_, band = (task /= tiles_) % bands_;
    Tile rows(*this, task / bands_, tile * tile_);
    for (int64_t y = band * HEIGHT; y < std::min(p_.height, (band + 1) * HEIGHT); ++y) rows.convolve(y);
  }

 private:
  using O = Operand<Number>;

  // Pixels, whose surroundings stay in the cache from one row to the next.
  static constexpr int64_t TILE = 64, HEIGHT = 32;

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
          products(PIXELS * ((a.radius_ + 1) * a.depth_ + LANES)),
          sums(PIXELS * width),
          dynamic(a.p_.dynamic_size * a.p_.dynamic_size * width) {
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
      read_near(y);
      fold_rows(y);
      for (int64_t x = 0; x < pixels; x += PIXELS) {
        apply_dynamic(x);
        apply_large(x);
        for (int64_t p = 0; p < std::min<int64_t>(PIXELS, pixels - x); ++p)
          copy(sums + p * width, a.p_.channels, a.p_.out.at(picture, 0, y, left + x + p));
      }
    }

    // The rows that the dynamic kernel covers.
    void read_near(int64_t y) {
      const int64_t size = a.p_.dynamic_size;
      std::fill(near + 0, near + size * span * width, 0.0f);
      for (int64_t i = 0; i < size; ++i) add_row(y + i - size / 2, near + i * span * width);
    }

    // folded[dy] is row y − dy plus row y + dy.
    void fold_rows(int64_t y) {
      std::fill(folded + 0, folded + (a.radius_ + 1) * span * width, 0.0f);
      add_row(y, folded);
      for (int64_t dy = 1; dy <= a.radius_; ++dy) {
        add_row(y - dy, folded + dy * span * width);
        add_row(y + dy, folded + dy * span * width);
      }
    }

    // Pixels left − radius … left − radius + span of a row; outside the picture there is nothing to add.
    void add_row(int64_t y, float* to) const {
      if (y < 0 || y >= a.p_.height) return;
      const int64_t start = left - a.radius_;
      const int64_t first = std::max<int64_t>(0, -start), last = std::min(span, a.p_.width - start);
      const Number* from = a.p_.x.at(picture, 0, y, start + first);
      for (int64_t x = first; x < last; ++x, from += a.p_.x.column) {
        float* pixel = to + x * width;
        int64_t c = 0;
        for (; c + LANES <= a.p_.channels; c += LANES) store(pixel + c, load(pixel + c) + load(from + c));
        for (; c < a.p_.channels; ++c) pixel[c] += to_float(from[c]);
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
      int64_t row = 0;
      for (int64_t dy = 0; dy <= a.radius_; ++dy) {
        const int64_t depth = (dy + 1) * a.depth_, stride = depth + LANES;
        for (int64_t dx = 0; dx <= dy; ++dx) {  // what is too much is overwritten by the next
          O* to = products + dx * a.depth_;
          if (dx < dy) {
            dx ? add_mirrored<true, true>(dy, dx, x, stride, to) : add_mirrored<false, true>(dy, dx, x, stride, to);
          } else {
            dx ? add_mirrored<true, false>(dy, dx, x, stride, to) : add_mirrored<false, false>(dy, dx, x, stride, to);
          }
        }
        multiply<O>(PIXELS, products, stride, depth, a.matrix_.from(row), width, sums, width, sums, width);
        row += depth;
      }
    }

    template <bool ASIDE, bool OFF_DIAGONAL>
    INLINE void add_mirrored(int64_t dy, int64_t dx, int64_t x, int64_t stride, O* to) const {
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
          store(to + p * stride + c, sum);
        }
      }
    }

    const ConvAttentionKernel& a;
    const int64_t picture, left, pixels, span;
    const int64_t width;           // channels, padded
    const Buffer<float> near;      // (dynamic_size, span, channels)
    const Buffer<float> folded;    // (radius + 1, span, channels)
    const Buffer<O> products;      // (PIXELS, (dy + 1) · channels + LANES)
    const Buffer<float> sums;      // (PIXELS, channels)
    const Buffer<float> dynamic;   // (dynamic_size², channels)
  };

  const ConvAttention<Number> p_;
  const int64_t radius_, tile_, tiles_, bands_;
  const int64_t depth_;  // channels, padded
  Matrix<O> matrix_;
};
