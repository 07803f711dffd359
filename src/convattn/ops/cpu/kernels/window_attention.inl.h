// Window attention. Included once for each instruction set, inside its namespace.
//
// For one key pixel and a run of queries in one row of the window the bias is a contiguous slice of the mirrored
// table, so that nothing larger than the table (16 KiB a head at 32×32) is read. Queries lie in the lanes of
// vectors, one in each of two rows, so that every number of a key or a value serves twice as many of them. Scores are
// kept in units of log 2. Tokens (query, key and value of a pixel) are read from maps or made of one, a window at a
// time.

#ifndef CONVATTN_NAMESPACE
#include "by_itself.h"
#include "simd.inl.h"
#include "matmul.inl.h"
#include "pixels.inl.h"
#endif

template <class Number>
class WindowAttentionKernel {
 public:
  WindowAttentionKernel(const WindowAttention<Number>& problem, int threads)
      : p_(problem),
        side_(2 * p_.window - 1),
        rows_((p_.height + p_.window - 1) / p_.window),
        columns_((p_.width + p_.window - 1) / p_.window),
        row_keys_(round_up(p_.window, KEYS)),
        rows_at_once_(std::max<int64_t>(1, WEIGHTS / row_keys_)),
        key_dim_(round_up(p_.head_dim, TOGETHER<O>)),
        value_dim_(round_up(p_.head_dim, VALUES)),
        token_dim_(round_up(p_.head_dim, LANES)),
        table_stride_(side_ * side_ + LANES),
        table_(p_.heads * table_stride_),
        largest_bias_(p_.heads),
        channels_(p_.x.data ? p_.heads * p_.head_dim : 0),
        depth_(round_up(channels_, TOGETHER<O>)),
        projection_(p_.heads * depth_, 3 * token_dim_),
        start_(p_.heads * 3 * token_dim_),
        reader_(p_.norm, channels_) {
    // Heads share the pixels of their window, and are parted only where windows are too few for the threads.
    const int64_t windows = p_.images * rows_ * columns_;
    const int64_t groups = threads > 1 ? (2 * threads + windows - 1) / std::max<int64_t>(1, windows) : 1;
    heads_at_once_ = (p_.heads + groups - 1) / groups;
    for (int64_t head = 0; head < p_.heads; ++head) mirror_table(head);
    if (p_.x.data) arrange_projection();
  }

  int64_t tasks() const { return p_.images * rows_ * columns_ * groups(); }

  // Some heads of one window.
  void operator()(int64_t task) const {
    const int64_t first = task % groups() * heads_at_once_;
    const int64_t column = (task /= groups()) % columns_;
    const int64_t row = (task /= columns_) % rows_;
    Window window(*this, task / rows_, row * p_.window, column * p_.window);
    for (int64_t head = first; head < std::min(first + heads_at_once_, p_.heads); ++head) window.attend(head);
  }

 private:
  using O = Operand<Number>;

  static constexpr int ROWS = 2;                          // of queries
  static constexpr int KEYS = REGISTERS == 32 ? 8 : 4;    // scored at once
  static constexpr int VALUES = REGISTERS == 32 ? 8 : 4;  // components of a value summed at once
  static constexpr int WEIGHTS = 128;                      // of keys, kept until values are summed
  static constexpr float LOG2E = 1.4426950408889634f;
  static constexpr float SAFE = 80;  // sums of 2^±80 neither overflow nor lose anything

  int64_t groups() const { return (p_.heads + heads_at_once_ - 1) / heads_at_once_; }

  void mirror_table(int64_t head) {
    const Number* from = p_.table + head * side_ * side_;
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

  // One matrix a head, which makes query, key and value of a pixel.
  void arrange_projection() {
    std::fill(start_ + 0, start_ + p_.heads * 3 * token_dim_, 0.0f);
    for (int64_t head = 0; head < p_.heads; ++head)
      for (int64_t which = 0; which < 3; ++which)
        for (int64_t c = 0; c < p_.head_dim; ++c) {
          const int64_t from = (which * p_.heads + head) * p_.head_dim + c, to = which * token_dim_ + c;
          start_[head * 3 * token_dim_ + to] = to_float(p_.bias[from]);
          for (int64_t i = 0; i < channels_; ++i)
            projection_.set(head * depth_ + i, to, to_float(p_.weight[from * channels_ + i]));
        }
  }

  // Rows of keys are padded to a multiple of KEYS; keys that are none get a score of −∞.
  struct Window {
    Window(const WindowAttentionKernel& kernel, int64_t image, int64_t top, int64_t left)
        : a(kernel),
          image(image),
          top(top),
          left(left),
          blocks((a.p_.window + LANES - 1) / LANES),
          pixels((a.p_.window * a.p_.window + PIXELS) * a.depth_),
          tokens(round_up(a.p_.window, PIXELS) * 3 * a.token_dim_),
          keys(a.p_.window * a.row_keys_ * a.key_dim_),
          values(a.p_.window * a.row_keys_ * a.value_dim_),
          queries(round_up(a.p_.window, ROWS) * blocks * LANES * a.key_dim_),
          weights(a.rows_at_once_ * a.row_keys_ * ROWS * LANES),
          sums(ROWS * LANES * a.value_dim_),
          lanes(a.token_dim_),
          largest_query(round_up(a.p_.window, ROWS) / ROWS * blocks) {
      std::memset(keys, 0, a.p_.window * a.row_keys_ * a.key_dim_ * sizeof(O));
      std::memset(values, 0, a.p_.window * a.row_keys_ * a.value_dim_ * sizeof(O));
      std::memset(queries, 0, round_up(a.p_.window, ROWS) * blocks * LANES * a.key_dim_ * sizeof(O));
      std::memset(lanes, 0, a.token_dim_ * sizeof(O));
      std::fill(tokens + 0, tokens + round_up(a.p_.window, PIXELS) * 3 * a.token_dim_, 0.0f);
      if (a.p_.x.data) read_pixels();
    }

    void read_pixels() {
      const int64_t size = a.p_.window;
      const Buffer<float> scratch(a.reader_.scratch());
      std::memset(pixels, 0, (size * size + PIXELS) * a.depth_ * sizeof(O));
      for (int64_t y = 0; y < size; ++y)
        for (int64_t x = 0; x < size; ++x) {
          const Number* from = a.p_.x.at(image, 0, reflected(top + y, a.p_.height), reflected(left + x, a.p_.width));
          a.reader_.read(from, scratch, pixels + (y * size + x) * a.depth_);
        }
    }

    // One head: all queries that lie in the image.
    void attend(int64_t which) {
      head = which;
      largest_key = 0;
      std::fill(largest_query.begin(), largest_query.end(), 0.0f);
      for (int64_t y = 0; y < a.p_.window; ++y) {
        take_tokens(y);
        for (int64_t x = 0; x < a.p_.window; ++x) pack(y, x);
      }
      const int64_t height = std::min(a.p_.window, a.p_.height - top);
      const int64_t width = std::min(a.p_.window, a.p_.width - left);
      for (int64_t y = 0; y < height; y += ROWS)
        for (int64_t x = 0; x < width; x += LANES)
          attend_queries(y, std::min<int64_t>(ROWS, height - y), x, std::min<int64_t>(LANES, width - x));
    }

    // Query, key and value of every pixel in a row.
    void take_tokens(int64_t y) {
      const int64_t size = a.p_.window, columns = 3 * a.token_dim_;
      if (a.p_.x.data)
        return multiply<O>(size, pixels + y * size * a.depth_, a.depth_, a.depth_, a.projection_.from(head * a.depth_),
                           columns, a.start_ + head * columns, 0, tokens, columns);
      for (int64_t x = 0; x < size; ++x) {
        const int64_t from_y = reflected(top + y, a.p_.height), from_x = reflected(left + x, a.p_.width);
        float* to = tokens + x * columns;
        for (const Map<Number>* map : {&a.p_.q, &a.p_.k, &a.p_.v}) {
          copy(map->at(image, head * a.p_.head_dim, from_y, from_x), a.p_.head_dim, to);
          to += a.token_dim_;
        }
      }
    }

    // Lay a pixel's query, key and value out as they are read.
    void pack(int64_t y, int64_t x) {
      const float *query = tokens + x * 3 * a.token_dim_, *key = query + a.token_dim_, *value = key + a.token_dim_;
      const int64_t block = y / ROWS * blocks + x / LANES;
      const float scale = LOG2E / std::sqrt(static_cast<float>(a.p_.head_dim));
      largest_query[block] = std::max(largest_query[block], scale * length(query));
      for (int64_t c = 0; c < a.token_dim_; c += LANES) store(lanes + c, load(query + c) * scale);
      O* to = queries + ((block * a.key_dim_ / N * ROWS + y % ROWS) * LANES + x % LANES) * N;
      for (int64_t c = 0; c < a.key_dim_; c += N, to += ROWS * LANES * N) std::memcpy(to, lanes + c, N * sizeof(O));

      largest_key = std::max(largest_key, length(key));
      copy(key, a.p_.head_dim, keys + (y * a.row_keys_ + x) * a.key_dim_);

      copy(value, a.p_.head_dim, lanes + 0);
      to = values + (y * a.row_keys_ + x) / N * N * a.value_dim_ + x % N;
      for (int64_t c = 0; c < a.p_.head_dim; ++c) to[c * N] = lanes[c];
    }

    float length(const float* token) const {
      Vector square = {};
      for (int64_t c = 0; c < a.token_dim_; c += LANES) square += load(token + c) * load(token + c);
      return std::sqrt(sum_of(square));
    }

    // Subtracting anything from all scores of a query leaves its result as it is. By Cauchy and Schwarz most
    // need nothing subtracted to be safe; others need their greatest, which takes a pass over the keys.
    void attend_queries(int64_t y, int64_t rows, int64_t x, int64_t count) {
      const int64_t block = y / ROWS * blocks + x / LANES;
      const bool safe = largest_query[block] * largest_key + a.largest_bias_[head] < SAFE;
      query = queries + block * ROWS * LANES * a.key_dim_;
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
      float* pixel = tokens;
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < count; ++i) {
          for (int64_t c = 0; c < a.p_.head_dim; ++c) pixel[c] = sums[(c * ROWS + r) * LANES + i];
          copy(pixel, a.p_.head_dim, a.p_.out.at(image, head * a.p_.head_dim, top + y + r, left + x + i));
        }
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
            CONVATTN_UNROLL(2)
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
    CONVATTN_INLINE void weigh(const Vector (&score)[KEYS], Vector& total, O* to) const {
      CONVATTN_UNROLL(8)
      for (int k = 0; k < KEYS; k += N) {
        Vector weight[N];
        CONVATTN_UNROLL(2)
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
    CONVATTN_INLINE void scores(int64_t y, int64_t x, Vector (&score)[ROWS][KEYS]) const {
      CONVATTN_UNROLL(2)
      for (int r = 0; r < ROWS; ++r)
        CONVATTN_UNROLL(8)
        for (int k = 0; k < KEYS; ++k) {
          const float* of_key = bias[r] + y * a.side_ - x - k;
          if (PLAIN) {
            score[r][k] = load(of_key);
          } else {
            score[r][k] = x + k < a.p_.window ? load(of_key) - subtracted[r] : splat(-INFINITY);
          }
        }
      const O* key = keys + (y * a.row_keys_ + x) * a.key_dim_;
      const O* component = query;
      for (int64_t c = 0; c < a.key_dim_; c += N, component += ROWS * LANES * N) {
        Vector q[ROWS];
        CONVATTN_UNROLL(2)
        for (int r = 0; r < ROWS; ++r) q[r] = load_lanes(component + r * LANES * N);
        CONVATTN_UNROLL(8)
        for (int k = 0; k < KEYS; ++k) {
          const Vector number = broadcast(key + k * a.key_dim_ + c);
          CONVATTN_UNROLL(2)
          for (int r = 0; r < ROWS; ++r) score[r][k] = multiply_add(number, q[r], score[r][k], O());
        }
      }
    }

    CONVATTN_INLINE void accumulate(int64_t first, int64_t count, int64_t c) const {
      float* to = sums + c * ROWS * LANES;
      Vector sum[VALUES][ROWS];
      CONVATTN_UNROLL(8)
      for (int i = 0; i < VALUES; ++i)
        CONVATTN_UNROLL(2)
        for (int r = 0; r < ROWS; ++r) sum[i][r] = load(to + (i * ROWS + r) * LANES);
      const O* weight = weights;
      const O* value = values + first * a.value_dim_ + c * N;
      for (int64_t k = 0; k < count; k += N, weight += ROWS * LANES * N, value += a.value_dim_ * N) {
        Vector w[ROWS];
        CONVATTN_UNROLL(2)
        for (int r = 0; r < ROWS; ++r) w[r] = load_lanes(weight + r * LANES * N);
        CONVATTN_UNROLL(8)
        for (int i = 0; i < VALUES; ++i) {
          const Vector number = broadcast(value + i * N);
          CONVATTN_UNROLL(2)
          for (int r = 0; r < ROWS; ++r) sum[i][r] = multiply_add(number, w[r], sum[i][r], O());
        }
      }
      CONVATTN_UNROLL(8)
      for (int i = 0; i < VALUES; ++i)
        CONVATTN_UNROLL(2)
        for (int r = 0; r < ROWS; ++r) store(to + (i * ROWS + r) * LANES, sum[i][r]);
    }

    static constexpr int N = TOGETHER<O>;

    const WindowAttentionKernel& a;
    const int64_t image, top, left;
    const int64_t blocks;         // of LANES queries in a row
    const Buffer<O> pixels;       // (rows, columns, depth)
    const Buffer<float> tokens;   // (columns, 3, token_dim)
    const Buffer<O> keys;         // (rows, row_keys, key_dim)
    const Buffer<O> values;       // (rows, row_keys / N, value_dim, N)
    const Buffer<O> queries;      // (rows / ROWS, blocks, key_dim / N, ROWS, LANES, N)
    const Buffer<O> weights;      // (keys / N, ROWS, LANES, N)
    const Buffer<float> sums;     // (value_dim, ROWS, LANES)
    const Buffer<O> lanes;        // (token_dim)
    std::vector<float> largest_query;  // of each ROWS · LANES
    float largest_key = 0;
    int64_t head = 0;
    const O* query = nullptr;  // those being attended
    const float* bias[ROWS];   // of the first key for the first query
    Vector subtracted[ROWS];
  };

  const WindowAttention<Number> p_;
  const int64_t side_, rows_, columns_;
  const int64_t row_keys_, rows_at_once_;
  const int64_t key_dim_, value_dim_, token_dim_;  // padded
  const int64_t table_stride_;
  const Buffer<float> table_;
  std::vector<float> largest_bias_;
  const int64_t channels_, depth_;  // of x
  Matrix<O> projection_;            // (heads, depth, 3, token_dim)
  const Buffer<float> start_;       // (heads, 3, token_dim)
  const Reader<Number> reader_;
  int64_t heads_at_once_;
};
