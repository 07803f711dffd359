// Window attention. Included once for each instruction set, inside its namespace.
//
// For one query pixel and a run of keys in one row of the window the bias is a contiguous slice of the table, so
// that nothing larger than the table (16 KiB a head at 32×32) is read and scores never leave the registers.
// Scores are kept in units of log 2.

class WindowAttentionKernel {
 public:
  explicit WindowAttentionKernel(const WindowAttention& problem)
      : p_(problem),
        side_(2 * p_.window - 1),
        rows_((p_.height + p_.window - 1) / p_.window),
        columns_((p_.width + p_.window - 1) / p_.window),
        vectors_(round_up(p_.window * vectors_a_row(), 2)),
        ragged_(p_.window % LANES || vectors_ % 2),
        value_dim_(round_up(p_.head_dim, VALUES * LANES)),
        table_stride_(side_ * side_ + LANES),
        table_(p_.heads * table_stride_),
        largest_bias_(p_.heads) {
    for (int64_t head = 0; head < p_.heads; ++head) scale_table(head);
  }

  int64_t tasks() const { return p_.pictures * rows_ * columns_ * p_.heads; }

  // One head of one window.
  void operator()(int64_t task) const {
    const int64_t head = task % p_.heads;
    const int64_t column = (task /= p_.heads) % columns_;
    const int64_t row = (task /= columns_) % rows_;
    Window window(*this, task / rows_, head, row * p_.window, column * p_.window);
    window.attend();
  }

 private:
  static constexpr int QUERIES = REGISTERS == 32 ? 8 : 4;  // a block of queries shares each key that is loaded
  static constexpr int VALUES = REGISTERS == 32 && LANES == 16 ? 1 : 2;  // vectors of a value at once
  static constexpr int KEYS = 2 * LANES;
  static constexpr float LOG2E = 1.4426950408889634f;
  static constexpr float SAFE = 80;  // sums of 2^±80 neither overflow nor lose anything

  int64_t vectors_a_row() const { return (p_.window + LANES - 1) / LANES; }

  void scale_table(int64_t head) {
    const float* from = p_.bias + head * side_ * side_;
    float* to = table_ + head * table_stride_;
    float largest = 0;
    for (int64_t i = 0; i < side_ * side_; ++i) {
      to[i] = from[i] * LOG2E;
      largest = std::max(largest, std::fabs(to[i]));
    }
    std::fill(to + side_ * side_, to + table_stride_, 0.0f);
    largest_bias_[head] = largest;
  }

  // Keys lie in vectors that never span two rows of the window. Where a row ends inside a vector, and in the
  // vector that makes their number even, the lanes left over get a score of −∞.
  struct Window {
    Window(const WindowAttentionKernel& kernel, int64_t picture, int64_t head, int64_t top, int64_t left)
        : a(kernel),
          picture(picture),
          channel(head * a.p_.head_dim),
          head(head),
          top(top),
          left(left),
          keys(a.vectors_ * LANES * a.p_.head_dim),
          values(a.vectors_ * LANES * a.value_dim_),
          bias_offset(a.vectors_),
          lanes(a.vectors_) {
      pack();
    }

    void pack() {
      const int64_t dim = a.p_.head_dim, size = a.p_.window, vectors_a_row = a.vectors_a_row();
      std::fill(values + 0, values + a.vectors_ * LANES * a.value_dim_, 0.0f);
      if (a.ragged_) std::fill(keys + 0, keys + a.vectors_ * LANES * dim, 0.0f);
      for (int64_t y = 0; y < size; ++y) {
        for (int64_t i = 0; i < vectors_a_row; ++i) {
          bias_offset[y * vectors_a_row + i] = y * a.side_ + i * LANES;
          lanes[y * vectors_a_row + i] = static_cast<int>(std::min<int64_t>(LANES, size - i * LANES));
        }
        const int64_t source_y = reflected(top + y, a.p_.height);
        for (int64_t x = 0; x < size; ++x) {
          const int64_t source_x = reflected(left + x, a.p_.width), at = y * vectors_a_row * LANES + x;
          const float* k = a.p_.k.at(picture, channel, source_y, source_x);
          const float* v = a.p_.v.at(picture, channel, source_y, source_x);
          float* key = keys + at / KEYS * KEYS * dim + at % KEYS;
          float* value = values + at * a.value_dim_;
          float square = 0;
          for (int64_t c = 0; c < dim; ++c) {
            const float component = k[c * a.p_.k.channel];
            key[c * KEYS] = component;
            square += component * component;
            value[c] = v[c * a.p_.v.channel];
          }
          largest_key = std::max(largest_key, square);
        }
      }
      largest_key = std::sqrt(largest_key);
    }

    // All queries that lie in the picture, a block at a time.
    void attend() {
      const int64_t height = std::min(a.p_.window, a.p_.height - top);
      const int64_t width = std::min(a.p_.window, a.p_.width - left);
      const int64_t count = height * width;
      for (int64_t first = 0; first < count; first += QUERIES) {
        for (int r = 0; r < QUERIES; ++r) {
          const int64_t pixel = std::min(first + r, count - 1);
          take_query(r, pixel / width, pixel % width);
        }
        attend_block();
        for (int r = 0; r < QUERIES && first + r < count; ++r) {
          const int64_t pixel = first + r;
          float* to = a.p_.out.at(picture, channel, top + pixel / width, left + pixel % width);
          for (int64_t c = 0; c < a.p_.head_dim; ++c) to[c * a.p_.out.channel] = sums[r * a.value_dim_ + c];
        }
      }
    }

    void take_query(int r, int64_t y, int64_t x) {
      const float* from = a.p_.q.at(picture, channel, top + y, left + x);
      const float scale = LOG2E / std::sqrt(static_cast<float>(a.p_.head_dim));
      float square = 0;
      for (int64_t c = 0; c < a.p_.head_dim; ++c) {
        const float component = from[c * a.p_.q.channel] * scale;
        queries[c * QUERIES + r] = component;
        square += component * component;
      }
      bound[r] = std::sqrt(square) * largest_key + a.largest_bias_[head];
      bias[r] = a.table_ + head * a.table_stride_ + (a.p_.window - 1 - y) * a.side_ + a.p_.window - 1 - x;
    }

    // Subtracting anything from all scores of a query leaves its result as it is. By Cauchy and Schwarz most
    // need nothing subtracted to be safe; others need their greatest, which takes a pass over the keys.
    void attend_block() {
      const bool safe = *std::max_element(bound, bound + QUERIES) < SAFE;
      for (int r = 0; r < QUERIES; ++r) subtracted[r] = 0;
      if (!safe) subtract_greatest();
      if (safe && !a.ragged_) {
        sum_values<true>();
      } else {
        sum_values<false>();
      }
    }

    // PLAIN: every lane holds a key and nothing is subtracted.
    template <bool PLAIN>
    void sum_values() {
      Vector total[QUERIES] = {};
      std::fill(sums + 0, sums + QUERIES * a.value_dim_, 0.0f);
      for (int64_t pair = 0; pair < a.vectors_ / 2; ++pair) {
        Vector score[QUERIES][2];
        scores<PLAIN>(pair, score);
        alignas(64) float weights[QUERIES][KEYS];
        UNROLL(8)
        for (int r = 0; r < QUERIES; ++r) {
          UNROLL(2)
          for (int j = 0; j < 2; ++j) {
            const Vector weight = exp2(PLAIN ? score[r][j] : at_least_smallest_exponent(score[r][j]));
            total[r] += weight;
            store(weights[r] + j * LANES, weight);
          }
        }
        for (int64_t c = 0; c < a.value_dim_; c += VALUES * LANES) accumulate(pair, c, weights);
      }
      for (int r = 0; r < QUERIES; ++r) {
        const float factor = 1 / sum_of(total[r]);
        for (int64_t c = 0; c < a.value_dim_; ++c) sums[r * a.value_dim_ + c] *= factor;
      }
    }

    void subtract_greatest() {
      Vector greatest[QUERIES];
      for (auto& g : greatest) g = splat(-INFINITY);
      for (int64_t pair = 0; pair < a.vectors_ / 2; ++pair) {
        Vector score[QUERIES][2];
        scores<false>(pair, score);
        for (int r = 0; r < QUERIES; ++r) greatest[r] = max(greatest[r], max(score[r][0], score[r][1]));
      }
      for (int r = 0; r < QUERIES; ++r) subtracted[r] = max_of(greatest[r]);
    }

    template <bool PLAIN>
    INLINE void scores(int64_t pair, Vector (&score)[QUERIES][2]) const {
      UNROLL(8)
      for (int r = 0; r < QUERIES; ++r) {
        UNROLL(2)
        for (int j = 0; j < 2; ++j) {
          score[r][j] = load(bias[r] + bias_offset[2 * pair + j]);
          if (!PLAIN) score[r][j] += load(MASK.values + LANES - lanes[2 * pair + j]) - subtracted[r];
        }
      }
      const float* key = keys + pair * KEYS * a.p_.head_dim;
      const float* query = queries;
      for (int64_t c = 0; c < a.p_.head_dim; ++c, key += KEYS, query += QUERIES) {
        const Vector k0 = load(key), k1 = load(key + LANES);
        UNROLL(8)
        for (int r = 0; r < QUERIES; ++r) {
          score[r][0] += query[r] * k0;
          score[r][1] += query[r] * k1;
        }
      }
    }

    INLINE void accumulate(int64_t pair, int64_t c, const float (&weights)[QUERIES][KEYS]) {
      Vector sum[QUERIES][VALUES];
      UNROLL(8)
      for (int r = 0; r < QUERIES; ++r)
        for (int j = 0; j < VALUES; ++j) sum[r][j] = load(sums + r * a.value_dim_ + c + j * LANES);
      const float* value = values + pair * KEYS * a.value_dim_ + c;
      for (int key = 0; key < KEYS; ++key, value += a.value_dim_) {
        UNROLL(8)
        for (int r = 0; r < QUERIES; ++r)
          for (int j = 0; j < VALUES; ++j) sum[r][j] += weights[r][key] * load(value + j * LANES);
      }
      UNROLL(8)
      for (int r = 0; r < QUERIES; ++r)
        for (int j = 0; j < VALUES; ++j) store(sums + r * a.value_dim_ + c + j * LANES, sum[r][j]);
    }

    const WindowAttentionKernel& a;
    const int64_t picture, channel, head, top, left;
    Buffer keys;    // (vectors / 2, head_dim, KEYS)
    Buffer values;  // (vectors · LANES, value_dim)
    std::vector<int64_t> bias_offset;
    std::vector<int> lanes;  // in use, of each vector
    float largest_key = 0;

    Buffer queries{a.p_.head_dim * QUERIES};
    Buffer sums{QUERIES * a.value_dim_};
    const float* bias[QUERIES];
    float bound[QUERIES], subtracted[QUERIES];
  };

  const WindowAttention p_;
  const int64_t side_, rows_, columns_, vectors_;
  const bool ragged_;
  const int64_t value_dim_, table_stride_;
  const Buffer table_;
  std::vector<float> largest_bias_;
};
