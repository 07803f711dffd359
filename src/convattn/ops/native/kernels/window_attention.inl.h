// Window attention. Included once for each instruction set, inside its namespace.
//
// For one key pixel and a run of queries in one row of the window the bias is a contiguous slice of the mirrored
// table, so that nothing larger than the table (16 KiB a head at 32×32) is read. Queries lie in the lanes of
// vectors, one in each of two rows, so that every number of a key or a value serves twice as many of them. Scores are
// kept in units of log 2.

template <class Number>
class WindowAttentionKernel {
 public:
  WindowAttentionKernel(const WindowAttention<Number>& problem, int)
      : p_(problem),
        side_(2 * p_.window - 1),
        rows_((p_.height + p_.window - 1) / p_.window),
        columns_((p_.width + p_.window - 1) / p_.window),
        row_keys_(round_up(p_.window, KEYS)),
        rows_at_once_(std::max<int64_t>(1, WEIGHTS / row_keys_)),
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

  static constexpr int ROWS = 2;                          // of queries
  static constexpr int KEYS = REGISTERS == 32 ? 8 : 4;    // scored at once
  static constexpr int VALUES = REGISTERS == 32 ? 8 : 4;  // components of a value summed at once
  static constexpr int WEIGHTS = 128;                      // of keys, kept until values are summed
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
          queries(ROWS * LANES * a.key_dim_),
          weights(a.rows_at_once_ * a.row_keys_ * ROWS * LANES),
          sums(ROWS * LANES * a.value_dim_),
          pixel(round_up(a.p_.head_dim, LANES)),
          lanes(round_up(a.p_.head_dim, LANES)) {
      std::fill(pixel + 0, pixel + round_up(a.p_.head_dim, LANES), 0.0f);
      std::memset(lanes, 0, round_up(a.p_.head_dim, LANES) * sizeof(O));
      pack();
    }

    void pack() {
      const int64_t size = a.p_.window;
      std::memset(keys, 0, size * a.row_keys_ * a.key_dim_ * sizeof(O));
      std::memset(values, 0, size * a.row_keys_ * a.value_dim_ * sizeof(O));
      for (int64_t y = 0; y < size; ++y)
        for (int64_t x = 0; x < size; ++x) {
          const int64_t source_y = reflected(top + y, a.p_.height), source_x = reflected(left + x, a.p_.width);
          const float square = read(a.p_.k.at(picture, channel, source_y, source_x), 1);
          largest_key = std::max(largest_key, square);
          copy(pixel + 0, a.p_.head_dim, keys + (y * a.row_keys_ + x) * a.key_dim_);
          copy(a.p_.v.at(picture, channel, source_y, source_x), a.p_.head_dim, lanes + 0);
          O* value = values + (y * a.row_keys_ + x) / N * N * a.value_dim_ + x % N;
          for (int64_t c = 0; c < a.p_.head_dim; ++c) value[c * N] = lanes[c];
        }
      largest_key = std::sqrt(largest_key);
    }

    // A head's channels of a pixel times a factor. Returns the sum of their squares.
    float read(const Number* from, float factor) const {
      Vector square = {};
      copy(from, a.p_.head_dim, pixel + 0);
      for (int64_t c = 0; c < a.p_.head_dim; c += LANES) {
        const Vector components = load(pixel + c) * factor;
        store(pixel + c, components);
        square += components * components;
      }
      return sum_of(square);
    }

    // All queries that lie in the picture.
    void attend() {
      const int64_t height = std::min(a.p_.window, a.p_.height - top);
      const int64_t width = std::min(a.p_.window, a.p_.width - left);
      for (int64_t y = 0; y < height; y += ROWS)
        for (int64_t x = 0; x < width; x += LANES)
          attend_queries(y, std::min<int64_t>(ROWS, height - y), x, std::min<int64_t>(LANES, width - x));
    }

    // Subtracting anything from all scores of a query leaves its result as it is. By Cauchy and Schwarz most
    // need nothing subtracted to be safe; others need their greatest, which takes a pass over the keys.
    void attend_queries(int64_t y, int64_t rows, int64_t x, int64_t count) {
      const bool safe = take_queries(y, rows, x, count) < SAFE;
      for (int r = 0; r < ROWS; ++r) {
        const int64_t row = y + std::min<int64_t>(r, rows - 1);  // a missing row is scored with the bias of the last
        bias[r] = a.table_ + head * a.table_stride_ + (a.p_.window - 1 - row) * a.side_ + a.p_.window - 1 + x;
        subtracted[r] = Vector{};
      }
      if (!safe) subtract_greatest();
      if (safe && a.row_keys_ == a.p_.window) {
        sum_values<true>();
      } else {
        sum_values<false>();
      }
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < count; ++i) {
          for (int64_t c = 0; c < a.p_.head_dim; ++c) pixel[c] = sums[(c * ROWS + r) * LANES + i];
          copy(pixel + 0, a.p_.head_dim, a.p_.out.at(picture, channel, top + y + r, left + x + i));
        }
    }

    // Returns the largest score that is possible.
    float take_queries(int64_t y, int64_t rows, int64_t x, int64_t count) {
      std::memset(queries, 0, ROWS * LANES * a.key_dim_ * sizeof(O));
      const float scale = LOG2E / std::sqrt(static_cast<float>(a.p_.head_dim));
      float largest = 0;
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < count; ++i) {
          const float square = read(a.p_.q.at(picture, channel, top + y + r, left + x + i), scale);
          largest = std::max(largest, square);
          copy(pixel + 0, a.p_.head_dim, lanes + 0);
          for (int64_t c = 0; c < a.key_dim_; c += N)
            std::memcpy(queries + ((c / N * ROWS + r) * LANES + i) * N, lanes + c, N * sizeof(O));
        }
      return std::sqrt(largest) * largest_key + a.largest_bias_[head];
    }

    // PLAIN: every key is one and nothing is subtracted.
    template <bool PLAIN>
    void sum_values() {
      Vector total[ROWS] = {};
      std::fill(sums + 0, sums + ROWS * LANES * a.value_dim_, 0.0f);
      for (int64_t first = 0; first < a.p_.window; first += a.rows_at_once_) {
        const int64_t rows = std::min(a.rows_at_once_, a.p_.window - first);
        O* weight = weights;
        for (int64_t y = first; y < first + rows; ++y)
          for (int64_t x = 0; x < a.row_keys_; x += KEYS, weight += ROWS * KEYS * LANES) {
            Vector score[ROWS][KEYS];
            scores<PLAIN>(y, x, score);
            UNROLL(2)
            for (int r = 0; r < ROWS; ++r) weigh<PLAIN>(score[r], total[r], weight + r * LANES * N);
          }
        for (int64_t c = 0; c < a.value_dim_; c += VALUES) accumulate(first * a.row_keys_, rows * a.row_keys_, c);
      }
      for (int64_t c = 0; c < a.value_dim_; ++c)
        for (int r = 0; r < ROWS; ++r) {
          float* sum = sums + (c * ROWS + r) * LANES;
          store(sum, load(sum) / total[r]);
        }
    }

    template <bool PLAIN>
    INLINE void weigh(const Vector (&score)[KEYS], Vector& total, O* to) const {
      UNROLL(8)
      for (int k = 0; k < KEYS; k += N) {
        Vector weight[N];
        UNROLL(2)
        for (int i = 0; i < N; ++i)
          weight[i] = exp2<O>(PLAIN ? score[k + i] : at_least_smallest_exponent(score[k + i]));
        const Vector together = side_by_side<O>(weight);
        total = multiply_add(together, ones<O>(), total, O());
        store_lanes(to + k * ROWS * LANES, together);
      }
    }

    void subtract_greatest() {
      Vector greatest[ROWS];
      std::fill(greatest, greatest + ROWS, splat(-INFINITY));
      for (int64_t y = 0; y < a.p_.window; ++y)
        for (int64_t x = 0; x < a.row_keys_; x += KEYS) {
          Vector score[ROWS][KEYS];
          scores<false>(y, x, score);
          for (int r = 0; r < ROWS; ++r)
            for (int k = 0; k < KEYS; ++k) greatest[r] = max(greatest[r], score[r][k]);
        }
      std::copy(greatest, greatest + ROWS, subtracted);
    }

    template <bool PLAIN>
    INLINE void scores(int64_t y, int64_t x, Vector (&score)[ROWS][KEYS]) const {
      UNROLL(2)
      for (int r = 0; r < ROWS; ++r)
        UNROLL(8)
        for (int k = 0; k < KEYS; ++k) {
          const float* of_key = bias[r] + y * a.side_ - x - k;
          if (PLAIN) {
            score[r][k] = load(of_key);
          } else {
            score[r][k] = x + k < a.p_.window ? load(of_key) - subtracted[r] : splat(-INFINITY);
          }
        }
      const O* key = keys + (y * a.row_keys_ + x) * a.key_dim_;
      const O* query = queries;
      for (int64_t c = 0; c < a.key_dim_; c += N, query += ROWS * LANES * N) {
        Vector q[ROWS];
        UNROLL(2)
        for (int r = 0; r < ROWS; ++r) q[r] = load_lanes(query + r * LANES * N);
        UNROLL(8)
        for (int k = 0; k < KEYS; ++k) {
          const Vector number = broadcast(key + k * a.key_dim_ + c);
          UNROLL(2)
          for (int r = 0; r < ROWS; ++r) score[r][k] = multiply_add(number, q[r], score[r][k], O());
        }
      }
    }

    INLINE void accumulate(int64_t first, int64_t count, int64_t c) const {
      float* to = sums + c * ROWS * LANES;
      Vector sum[VALUES][ROWS];
      UNROLL(8)
      for (int i = 0; i < VALUES; ++i)
        UNROLL(2)
        for (int r = 0; r < ROWS; ++r) sum[i][r] = load(to + (i * ROWS + r) * LANES);
      const O* weight = weights;
      const O* value = values + first * a.value_dim_ + c * N;
      for (int64_t k = 0; k < count; k += N, weight += ROWS * LANES * N, value += a.value_dim_ * N) {
        Vector w[ROWS];
        UNROLL(2)
        for (int r = 0; r < ROWS; ++r) w[r] = load_lanes(weight + r * LANES * N);
        UNROLL(8)
        for (int i = 0; i < VALUES; ++i) {
          const Vector number = broadcast(value + i * N);
          UNROLL(2)
          for (int r = 0; r < ROWS; ++r) sum[i][r] = multiply_add(number, w[r], sum[i][r], O());
        }
      }
      UNROLL(8)
      for (int i = 0; i < VALUES; ++i)
        UNROLL(2)
        for (int r = 0; r < ROWS; ++r) store(to + (i * ROWS + r) * LANES, sum[i][r]);
    }

    static constexpr int N = TOGETHER<O>;

    const WindowAttentionKernel& a;
    const int64_t picture, channel, head, top, left;
    const Buffer<O> keys;      // (rows, row_keys, key_dim)
    const Buffer<O> values;    // (rows, row_keys / N, value_dim, N)
    const Buffer<O> queries;   // (key_dim / N, ROWS, LANES, N)
    const Buffer<O> weights;   // (keys / N, ROWS, LANES, N)
    const Buffer<float> sums;  // (value_dim, ROWS, LANES)
    const Buffer<float> pixel;  // (head_dim)
    const Buffer<O> lanes;      // (head_dim)
    float largest_key = 0;
    const float* bias[ROWS];  // of the first key for the first query
    Vector subtracted[ROWS];
  };

  const WindowAttention<Number> p_;
  const int64_t side_, rows_, columns_;
  const int64_t row_keys_, rows_at_once_;
  const int64_t key_dim_, value_dim_;  // padded
  const int64_t table_stride_;
  const Buffer<float> table_;
  std::vector<float> largest_bias_;
};
