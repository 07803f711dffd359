// Convolutional attention. Included once for each instruction set, inside its namespace.
//
// A kernel that is symmetric under all flips and rotations gives mirrored taps one weight, so pixels at mirrored
// taps are added first: a 13×13 kernel needs 28 products in place of 169.

class ConvAttentionKernel {
 public:
  explicit ConvAttentionKernel(const ConvAttention& problem)
      : p_(problem),
        radius_(p_.size / 2),
        padded_(round_up(p_.channels, LANES)),
        tile_(round_up(std::min<int64_t>(p_.width, TILE), PIXELS)),
        tiles_((p_.width + tile_ - 1) / tile_),
        taps_((radius_ + 1) * (radius_ + 2) / 2),
        matrix_(taps_ * p_.channels * padded_) {
    pack();
  }

  int64_t tasks() const { return p_.pictures * p_.height; }

  // One row of one picture.
  void operator()(int64_t task) const {
    Row row(*this, task / p_.height, task % p_.height);
    for (int64_t i = 0; i < tiles_; ++i) row.convolve(i * tile_);
  }

 private:
  static constexpr int64_t TILE = 64;  // pixels, whose sums fit in the cache

  // One octant of the kernel, (taps, in, out), the channels of the last padded.
  void pack() {
    const int64_t size = p_.size, channels = p_.channels;
    std::fill(matrix_ + 0, matrix_ + taps_ * channels * padded_, 0.0f);
    for (int64_t out = 0; out < channels; ++out)
      for (int64_t in = 0; in < channels; ++in) {
        const float* kernel = p_.large_kernel + (out * channels + in) * size * size;
        for (int64_t dy = 0, tap = 0; dy <= radius_; ++dy)
          for (int64_t dx = 0; dx <= dy; ++dx, ++tap)
            matrix_[(tap * channels + in) * padded_ + out] = kernel[(radius_ + dy) * size + radius_ + dx];
      }
  }

  struct Row {
    Row(const ConvAttentionKernel& kernel, int64_t picture, int64_t y)
        : a(kernel),
          picture(picture),
          y(y),
          span(a.tile_ + 2 * a.radius_),
          near(a.p_.dynamic_size * span * a.padded_),
          folded((a.radius_ + 1) * span * a.padded_),
          products(PIXELS * ((a.radius_ + 1) * a.p_.channels) + LANES),
          sums(a.tile_ * a.padded_),
          dynamic(a.p_.dynamic_size * a.p_.dynamic_size * a.padded_) {
      pack_dynamic();
    }

    // (taps, channels)
    void pack_dynamic() {
      const int64_t area = a.p_.dynamic_size * a.p_.dynamic_size;
      const float* kernel = a.p_.dynamic_kernel + picture * a.p_.channels * area;
      std::fill(dynamic + 0, dynamic + area * a.padded_, 0.0f);
      for (int64_t c = 0; c < a.p_.channels; ++c)
        for (int64_t tap = 0; tap < area; ++tap) dynamic[tap * a.padded_ + c] = kernel[c * area + tap];
    }

    void convolve(int64_t left) {
      const int64_t pixels = std::min(a.tile_, a.p_.width - left);
      read_near(left);
      fold_rows(left);
      for (int64_t x = 0; x < pixels; x += PIXELS) {
        apply_dynamic(x);
        apply_large(x);
      }
      for (int64_t x = 0; x < pixels; ++x)
        copy(sums + x * a.padded_, a.p_.channels, a.p_.out.at(picture, 0, y, left + x));
    }

    // The rows that the dynamic kernel covers.
    void read_near(int64_t left) {
      const int64_t size = a.p_.dynamic_size;
      std::fill(near + 0, near + size * span * a.padded_, 0.0f);
      for (int64_t i = 0; i < size; ++i) add_row(y + i - size / 2, left, near + i * span * a.padded_);
    }

    // folded[dy] is row y − dy plus row y + dy.
    void fold_rows(int64_t left) {
      std::fill(folded + 0, folded + (a.radius_ + 1) * span * a.padded_, 0.0f);
      add_row(y, left, folded);
      for (int64_t dy = 1; dy <= a.radius_; ++dy) {
        add_row(y - dy, left, folded + dy * span * a.padded_);
        add_row(y + dy, left, folded + dy * span * a.padded_);
      }
    }

    // Pixels left − radius … left − radius + span of a row; outside the picture there is nothing to add.
    void add_row(int64_t source_y, int64_t left, float* to) const {
      if (source_y < 0 || source_y >= a.p_.height) return;
      const int64_t start = left - a.radius_;
      const int64_t first = std::max<int64_t>(0, -start), last = std::min(span, a.p_.width - start);
      const int64_t whole = a.p_.channels / LANES * LANES;
      for (int64_t x = first; x < last; ++x) {
        const float* from = a.p_.x.at(picture, 0, source_y, start + x);
        float* pixel = to + x * a.padded_;
        for (int64_t c = 0; c < whole; c += LANES) store(pixel + c, load(pixel + c) + load(from + c));
        for (int64_t c = whole; c < a.p_.channels; ++c) pixel[c] += from[c];
      }
    }

    void apply_dynamic(int64_t x) {
      const int64_t size = a.p_.dynamic_size, offset = a.radius_ - size / 2;
      for (int64_t c = 0; c < a.padded_; c += LANES)
        for (int64_t p = x; p < x + PIXELS; ++p) {
          Vector sum = {};
          for (int64_t i = 0; i < size; ++i)
            for (int64_t j = 0; j < size; ++j)
              sum += load(dynamic + (i * size + j) * a.padded_ + c) *
                     load(near + (i * span + p + offset + j) * a.padded_ + c);
          store(sums + p * a.padded_ + c, sum);
        }
    }

    // Tap (dy, dx) of the octant stands for (±dy, ±dx) and (±dx, ±dy).
    void apply_large(int64_t x) {
      const int64_t channels = a.p_.channels;
      const float* matrix = a.matrix_;
      for (int64_t dy = 0; dy <= a.radius_; ++dy) {
        const int64_t depth = (dy + 1) * channels;
        for (int64_t p = 0; p < PIXELS; ++p) {
          float* to = products + p * depth;
          for (int64_t dx = 0; dx <= dy; ++dx)
            for (int64_t c = 0; c < channels; c += LANES)  // what is too much is overwritten by the next
              store(to + dx * channels + c, mirrored(dy, dx, (x + p + a.radius_) * a.padded_ + c));
        }
        multiply(PIXELS, products, depth, depth, matrix, a.padded_, sums + x * a.padded_, a.padded_,
                 sums + x * a.padded_, a.padded_);
        matrix += depth * a.padded_;
      }
    }

    INLINE Vector mirrored(int64_t dy, int64_t dx, int64_t at) const {
      const float* row = folded + dy * span * a.padded_ + at;
      const float* other = folded + dx * span * a.padded_ + at;
      Vector sum = load(row + dx * a.padded_);
      if (dx) sum += load(row - dx * a.padded_);
      if (dx < dy) sum += load(other + dy * a.padded_) + load(other - dy * a.padded_);
      return sum;
    }

    const ConvAttentionKernel& a;
    const int64_t picture, y, span;
    Buffer near;      // (dynamic_size, span, padded)
    Buffer folded;    // (radius + 1, span, padded)
    Buffer products;  // (PIXELS, dy + 1, channels)
    Buffer sums;      // (tile, padded)
    Buffer dynamic;   // (dynamic_size², padded)
  };

  const ConvAttention p_;
  const int64_t radius_, padded_, tile_, tiles_, taps_;
  const Buffer matrix_;  // (taps, channels, padded)
};
