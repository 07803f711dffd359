// Window attention. Included once for each instruction set, inside its namespace.
//
// For one key pixel and a run of queries in one row of the window the bias is a contiguous slice of the mirrored
// table, so that nothing larger than the table (16 KiB a head at 32×32) is read. Queries lie in the lanes of a
// vector, so that every number of a key or a value serves as many of them. Scores are kept in units of log 2.

template <class Number>
class WindowAttentionKernel {
 public:
  WindowAttentionKernel(const WindowAttention<Number>& problem, int)
      : p_(problem),
        side_(2 * p_.window - 1),
        rows_((p_.height + p_.window - 1) / p_.window),
        columns_((p_.width + p_.window - 1) / p_.window),
        row_keys_(round_up(p_.window, KEYS)),
        key_dim_(round_up(p_.head_dim, TOGETHER<O>)),
        value_dim_(round_up(p_.head_dim, VALUES)),
        table_stride_(side_ * side_ + LANES),
        table_(p_.heads * table_stride_),
        largest_bias_(p_.heads) {
    for (int64_t head = 0; head < p_.heads; ++head) mirror_table(head);
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
  using O = Operand<Number>;

  static constexpr int KEYS = REGISTERS == 32 ? 8 : 4;     // scored at once
  static constexpr int VALUES = REGISTERS == 32 ? 16 : 8;  // components of a value summed at once
  static constexpr float LOG2E = 1.4426950408889634f;
  static constexpr float SAFE = 80;  // sums of 2^±80 neither overflow nor lose anything

  void mirror_table(int64_t head) {
    const Number* from = p_.bias + head * side_ * side_;
    float* to = table_ + head * table_stride_;
    float largest = 0;
    for (int64_t y = 0; y < side_; ++y)
      for (int64_t x = 0; x < side_; ++x) {
        const float bias = to_float(from[y * side_ + side_ - 1 - x]) * LOG2E;
        to[y * side_ + x] = bias;
        largest = std::max(largest, std::fabs(bias));
      }
    std::fill(to + side_ * side_, to + table_stride_, 0.0f);
    largest_bias_[head] = largest;
  }

  // Rows of keys are padded to a multiple of KEYS; keys that are none get a score of −∞.
  struct Window {
    Window(const WindowAttentionKernel& kernel, int64_t picture, int64_t head, int64_t top, int64_t left)
        : a(kernel),
          picture(picture),
          channel(head * a.p_.head_dim),
          head(head),
          top(top),
          left(left),
          keys(a.p_.window * a.row_keys_ * a.key_dim_),
          values(a.p_.window * a.row_keys_ * a.value_dim_),
          queries(LANES * a.key_dim_),
          weights(LANES * a.row_keys_),
          sums(LANES * a.value_dim_) {
      pack();
    }

    void pack() {
      const int64_t size = a.p_.window;
      std::memset(keys, 0, size * a.row_keys_ * a.key_dim_ * sizeof(O));
      std::memset(values, 0, size * a.row_keys_ * a.value_dim_ * sizeof(O));
      for (int64_t y = 0; y < size; ++y)
        for (int64_t x = 0; x < size; ++x) {
          const int64_t source_y = reflected(top + y, a.p_.height), source_x = reflected(left + x, a.p_.width);
          const Number* k = a.p_.k.at(picture, channel, source_y, source_x);
          const Number* v = a.p_.v.at(picture, channel, source_y, source_x);
          O* key = keys + (y * a.row_keys_ + x / KEYS * KEYS) * a.key_dim_ + x % KEYS * N;
          O* value = values + (y * a.row_keys_ + x) / N * N * a.value_dim_ + x % N;
          float square = 0;
          for (int64_t c = 0; c < a.p_.head_dim; ++c) {
            const float component = to_float(k[c * a.p_.k.channel]);
            assign(key[c / N * KEYS * N + c % N], component);
            assign(value[c * N], to_float(v[c * a.p_.v.channel]));
            square += component * component;
          }
          largest_key = std::max(largest_key, square);
        }
      largest_key = std::sqrt(largest_key);
    }

    // All queries that lie in the picture, as many in a row as a vector has lanes.
    void attend() {
      const int64_t height = std::min(a.p_.window, a.p_.height - top);
      const int64_t width = std::min(a.p_.window, a.p_.width - left);
      for (int64_t y = 0; y < height; ++y)
        for (int64_t x = 0; x < width; x += LANES) attend_queries(y, x, std::min<int64_t>(LANES, width - x));
    }

    // Subtracting anything from all scores of a query leaves its result as it is. By Cauchy and Schwarz most
    // need nothing subtracted to be safe; others need their greatest, which takes a pass over the keys.
    void attend_queries(int64_t y, int64_t x, int64_t count) {
      const bool safe = take_queries(y, x, count) < SAFE;
      bias = a.table_ + head * a.table_stride_ + (a.p_.window - 1 - y) * a.side_ + a.p_.window - 1 + x;
      subtracted = Vector{};
      if (!safe) subtract_greatest();
      if (safe && a.row_keys_ == a.p_.window) {
        sum_values<true>();
      } else {
        sum_values<false>();
      }
      for (int64_t i = 0; i < count; ++i) {
        Number* to = a.p_.out.at(picture, channel, top + y, left + x + i);
        for (int64_t c = 0; c < a.p_.head_dim; ++c) assign(to[c * a.p_.out.channel], sums[c * LANES + i]);
      }
    }

    // Returns the largest score that is possible.
    float take_queries(int64_t y, int64_t x, int64_t count) {
      std::memset(queries, 0, LANES * a.key_dim_ * sizeof(O));
      const float scale = LOG2E / std::sqrt(static_cast<float>(a.p_.head_dim));
      float largest = 0;
      for (int64_t i = 0; i < count; ++i) {
        const Number* from = a.p_.q.at(picture, channel, top + y, left + x + i);
        float square = 0;
        for (int64_t c = 0; c < a.p_.head_dim; ++c) {
          const float component = to_float(from[c * a.p_.q.channel]) * scale;
          assign(queries[c / N * LANES * N + i * N + c % N], component);
          square += component * component;
        }
        largest = std::max(largest, square);
      }
      return std::sqrt(largest) * largest_key + a.largest_bias_[head];
    }

    // PLAIN: every key is one and nothing is subtracted.
    template <bool PLAIN>
    void sum_values() {
      Vector total = {};
      std::fill(sums + 0, sums + LANES * a.value_dim_, 0.0f);
      for (int64_t y = 0; y < a.p_.window; ++y) {
        for (int64_t x = 0; x < a.row_keys_; x += KEYS) {
          Vector score[KEYS];
          scores<PLAIN>(y, x, score);
          weigh<PLAIN>(x, score, total);
        }
        for (int64_t c = 0; c < a.value_dim_; c += VALUES) accumulate(y, c);
      }
      const Vector factor = 1 / total;
      for (int64_t c = 0; c < a.value_dim_; ++c) store(sums + c * LANES, load(sums + c * LANES) * factor);
    }

    template <bool PLAIN>
    INLINE void weigh(int64_t x, const Vector (&score)[KEYS], Vector& total) const {
      UNROLL(8)
      for (int k = 0; k < KEYS; k += N) {
        Vector weight[N];
        UNROLL(2)
        for (int i = 0; i < N; ++i)
          weight[i] = exp2<O>(PLAIN ? score[k + i] : at_least_smallest_exponent(score[k + i]));
        const Vector lanes = side_by_side<O>(weight);
        total = multiply_add(lanes, ones<O>(), total, O());
        store_lanes(weights + (x + k) * LANES, lanes);
      }
    }

    void subtract_greatest() {
      Vector greatest = splat(-INFINITY);
      for (int64_t y = 0; y < a.p_.window; ++y)
        for (int64_t x = 0; x < a.row_keys_; x += KEYS) {
          Vector score[KEYS];
          scores<false>(y, x, score);
          for (int k = 0; k < KEYS; ++k) greatest = max(greatest, score[k]);
        }
      subtracted = greatest;
    }

    template <bool PLAIN>
    INLINE void scores(int64_t y, int64_t x, Vector (&score)[KEYS]) const {
      UNROLL(8)
      for (int k = 0; k < KEYS; ++k) {
        if (PLAIN) {
          score[k] = load(bias + y * a.side_ - x - k);
        } else {
          score[k] = x + k < a.p_.window ? load(bias + y * a.side_ - x - k) - subtracted : splat(-INFINITY);
        }
      }
      const O* key = keys + (y * a.row_keys_ + x) * a.key_dim_;
      const O* query = queries;
      for (int64_t c = 0; c < a.key_dim_; c += N, key += KEYS * N, query += LANES * N) {
        const Vector q = load_lanes(query);
        UNROLL(8)
        for (int k = 0; k < KEYS; ++k) score[k] = multiply_add(broadcast(key + k * N), q, score[k], O());
      }
    }

    INLINE void accumulate(int64_t y, int64_t c) const {
      Vector sum[VALUES];
      UNROLL(16)
      for (int i = 0; i < VALUES; ++i) sum[i] = load(sums + (c + i) * LANES);
      const O* weight = weights;
      const O* value = values + y * a.row_keys_ * a.value_dim_ + c * N;
      for (int64_t x = 0; x < a.row_keys_; x += N, weight += LANES * N, value += a.value_dim_ * N) {
        const Vector w = load_lanes(weight);
        UNROLL(16)
        for (int i = 0; i < VALUES; ++i) sum[i] = multiply_add(broadcast(value + i * N), w, sum[i], O());
      }
      UNROLL(16)
      for (int i = 0; i < VALUES; ++i) store(sums + (c + i) * LANES, sum[i]);
    }

    static constexpr int N = TOGETHER<O>;

    const WindowAttentionKernel& a;
    const int64_t picture, channel, head, top, left;
    const Buffer<O> keys;      // (rows, row_keys / KEYS, key_dim / N, KEYS, N)
    const Buffer<O> values;    // (rows, row_keys / N, value_dim, N)
    const Buffer<O> queries;   // (key_dim / N, LANES, N)
    const Buffer<O> weights;   // (row_keys / N, LANES, N)
    const Buffer<float> sums;  // (value_dim, LANES)
    float largest_key = 0;
    const float* bias;  // of the first key for the first query
    Vector subtracted;
  };

  const WindowAttention<Number> p_;
  const int64_t side_, rows_, columns_;
  const int64_t row_keys_, key_dim_, value_dim_;  // padded
  const int64_t table_stride_;
  const Buffer<float> table_;
  std::vector<float> largest_bias_;
};
