// Gradients of window self-attention. Included once for each instruction set, inside its namespace.
//
// Tokens and scores are made anew, a window at a time and in it for ROWS vectors of queries at a time, so that no matrix
// of scores is in memory. Biases and their gradients lie as vectors over the lanes of queries, one for each offset of a
// key: for a vector of queries they are contiguous over the keys.

#ifndef CONVATTN_NAMESPACE
#include "by_itself.h"
#include "simd.inl.h"
#include "matmul.inl.h"
#include "pixels.inl.h"
#include "gradients.inl.h"
#include "query_lanes.inl.h"
#endif

template <class Number>
class WindowAttentionGradientKernel {
 public:
  WindowAttentionGradientKernel(const WindowAttentionGradient<Number>& problem, int)
      : p_(problem),
        tokens_(p_.window * p_.window),
        places_(p_.window, ROWS),
        channels_(p_.heads * p_.head_dim),
        dim_(round_up(p_.head_dim, LANES)),
        width_(round_up(channels_, LANES)),
        depth_(round_up(channels_, TOGETHER<O>)),
        projection_(p_.heads * depth_, 3 * dim_),
        back_(p_.heads * 3 * dim_, channels_),
        start_(p_.heads * 3 * dim_),
        biases_((p_.heads * places_.offsets + KEYS) * LANES),
        reader_(p_.norm, channels_),
        norm_(p_.norm, channels_),
        sums_(p_.images * windows(), norm_at() + norm_.sums()) {
    std::fill(start_ + 0, start_ + p_.heads * 3 * dim_, 0.0f);
    std::fill(biases_ + 0, biases_ + (p_.heads * places_.offsets + KEYS) * LANES, 0.0f);
    for (int64_t head = 0; head < p_.heads; ++head) {
      arrange_projection(head);
      const Number* table = p_.table + head * entries();
      float* biases = biases_ + head * places_.offsets * LANES;
      places_.for_each_offset([&](int64_t lane, int64_t entry) { biases[lane] = to_float(table[entry]) * LOG2E; });
    }
  }

  int64_t tasks() const { return sums_.parts; }

  void operator()(int64_t task) const {
    const int64_t count = p_.heads * places_.offsets * LANES;
    const Buffer<float> bias_sums(count);
    std::fill(bias_sums + 0, bias_sums + count, 0.0f);
    Window window(*this, sums_.of(task), bias_sums);
    sums_.compute(task, [&](int64_t piece, float*) {
      const int64_t columns = p_.width / p_.window, of_image = piece % windows();
      window.run(piece / windows(), of_image / columns * p_.window, of_image % columns * p_.window);
    });
    for (int64_t head = 0; head < p_.heads; ++head) {
      float* table = sums_.of(task) + table_at() + head * entries();
      const float* from = bias_sums + head * places_.offsets * LANES;
      places_.for_each_offset([&](int64_t lane, int64_t entry) { table[entry] += from[lane]; });
    }
  }

  void finish() const {
    const float* from = sums_.total();
    float *weight = p_.sums, *bias = weight + 3 * channels_ * channels_;
    for_each_row([&](int64_t row, int64_t padded) {
      std::copy(from + padded * width_, from + padded * width_ + channels_, weight + row * channels_);
      bias[row] = from[bias_at() + padded];
    });
    float* to = unpad(from + table_at(), 1, p_.heads * entries(), 0, bias + 3 * channels_);
    norm_.unpad_sums(from + norm_at(), to);
  }

 private:
  using O = Operand<Number>;

  static constexpr int ROWS = 2;                        // vectors of queries
  static constexpr int KEYS = REGISTERS == 32 ? 8 : 4;  // scored at once
  static constexpr float LOG2E = 1.4426950408889634f;

  int64_t entries() const { return places_.side * places_.side; }  // of a head's table
  int64_t windows() const { return p_.height / p_.window * (p_.width / p_.window); }

  // Where sums of a part begin, after those of the projection's weight (heads, 3, dim, channels).
  int64_t bias_at() const { return p_.heads * 3 * dim_ * width_; }
  int64_t table_at() const { return bias_at() + p_.heads * 3 * dim_; }
  int64_t norm_at() const { return table_at() + p_.heads * entries(); }

  // Call visit(row of the projection, the same where heads lie together and are padded).
  template <class Visit>
  void for_each_row(const Visit& visit) const {
    for (int64_t head = 0; head < p_.heads; ++head)
      for (int64_t which = 0; which < 3; ++which)
        for (int64_t c = 0; c < p_.head_dim; ++c)
          visit((which * p_.heads + head) * p_.head_dim + c, (head * 3 + which) * dim_ + c);
  }

  void arrange_projection(int64_t head) {
    for (int64_t which = 0; which < 3; ++which)
      for (int64_t c = 0; c < p_.head_dim; ++c) {
        const int64_t from = (which * p_.heads + head) * p_.head_dim + c, to = which * dim_ + c;
        start_[head * 3 * dim_ + to] = to_float(p_.bias[from]);
        for (int64_t i = 0; i < channels_; ++i) {
          const float weight = to_float(p_.weight[from * channels_ + i]);
          projection_.set(head * depth_ + i, to, weight);
          back_.set(head * 3 * dim_ + to, i, weight);
        }
      }
  }

  struct Window {
    Window(const WindowAttentionGradientKernel& kernel, float* sums, float* bias_sums)
        : a(kernel),
          sums(sums),
          bias_sums(bias_sums),
          stride(3 * a.dim_),
          scale(1 / std::sqrt(static_cast<float>(a.p_.head_dim))),
          pixels((a.tokens_ + PIXELS) * a.width_),
          pixel_grads((a.tokens_ + PIXELS) * a.width_),
          tokens((a.tokens_ + PIXELS) * stride),
          token_grads((a.tokens_ + PIXELS) * stride),
          operands((a.tokens_ + PIXELS) * stride),
          queries(COUNT * a.dim_),
          grads(COUNT * a.dim_),
          query_grads(COUNT * a.dim_),
          query_lanes(COUNT * a.dim_),
          grad_lanes(COUNT * a.dim_),
          lanes(a.dim_),
          scores((a.tokens_ + PIXELS) * COUNT),
          weights((a.tokens_ + PIXELS) * COUNT),
          slopes((a.tokens_ + PIXELS) * COUNT),
          key_stack(a.tokens_, a.dim_),
          slope_stack(a.tokens_, COUNT),
          query_stack(COUNT, a.dim_),
          grad_stack(COUNT, a.dim_),
          pixel_stack(a.tokens_, a.width_),
          operand_stack(a.tokens_, stride),
          scratch(std::max(a.reader_.scratch(), a.norm_.scratch())) {
      std::memset(pixels, 0, (a.tokens_ + PIXELS) * a.width_ * sizeof(O));
      std::memset(operands, 0, (a.tokens_ + PIXELS) * stride * sizeof(O));
    }

    void run(int64_t image_, int64_t top_, int64_t left_) {
      image = image_, top = top_, left = left_;
      for_each_pixel([&](int64_t i, int64_t y, int64_t x) {
        a.reader_.read(a.p_.x.at(image, 0, y, x), scratch, pixels + i * a.width_);
      });
      std::fill(pixel_grads + 0, pixel_grads + a.tokens_ * a.width_, 0.0f);
      for (int64_t head = 0; head < a.p_.heads; ++head) differentiate(head);
      for_each_pixel([&](int64_t i, int64_t y, int64_t x) {
        Number* to = a.p_.x_grad.data ? a.p_.x_grad.at(image, 0, y, x) : nullptr;
        a.norm_.write(a.p_.x.at(image, 0, y, x), pixel_grads + i * a.width_, scratch, sums + a.norm_at(), to);
      });
    }

    template <class Visit>
    void for_each_pixel(const Visit& visit) const {
      for (int64_t i = 0; i < a.tokens_; ++i) visit(i, top + i / a.p_.window, left + i % a.p_.window);
    }

    void differentiate(int64_t head) {
      const int64_t depth = a.depth_, first = head * stride;
      multiply<O>(a.tokens_, pixels, a.width_, depth, a.projection_.from(head * depth), stride, a.start_ + first, 0,
                  tokens, stride);
      copy(tokens + 0, a.tokens_ * stride, operands + 0);
      keys = key_stack(a.tokens_, operands + a.dim_, stride, a.dim_);
      std::fill(token_grads + 0, token_grads + a.tokens_ * stride, 0.0f);
      for (int64_t vector = 0; vector < a.places_.vectors; vector += ROWS) {
        take_queries(head, vector);
        const float* biases[ROWS];
        float* sums_of_bias[ROWS];
        for (int r = 0; r < ROWS; ++r) {
          const int64_t at = head * a.places_.offsets + a.places_.first_offset(vector + r);
          biases[r] = a.biases_ + at * LANES;
          sums_of_bias[r] = bias_sums + at * LANES;
        }
        weigh(biases);
        find_slopes(sums_of_bias);
        add_token_grads(vector);
      }
      add_pixels(a.tokens_, token_grads + 0, stride, sums + a.bias_at() + first);
      copy(token_grads + 0, a.tokens_ * stride, operands + 0);
      add_products(a.tokens_, operand_stack(a.tokens_, operands, stride, stride), stride,
                   pixel_stack(a.tokens_, pixels, a.width_, a.width_), a.width_, sums + first * a.width_);
      multiply<O>(a.tokens_, operands, stride, stride, a.back_.from(first), a.width_, pixel_grads, a.width_,
                  pixel_grads, a.width_);
    }

    // Queries, scaled, and gradients of their results: as rows and, for scores, in lanes.
    void take_queries(int64_t head, int64_t vector) {
      for (O* all : {queries + 0, grads + 0, query_lanes + 0, grad_lanes + 0})
        std::memset(all, 0, COUNT * a.dim_ * sizeof(O));
      for (int64_t i = 0; i < COUNT; ++i) {
        const int64_t token = a.places_.query_in(vector + i / LANES, i % LANES);
        if (token < 0) continue;
        const float* query = tokens + token * stride;
        for (int64_t c = 0; c < a.dim_; c += LANES) {
          store(queries + i * a.dim_ + c, load(query + c) * scale);
          store(lanes + c, load(query + c) * (scale * LOG2E));
        }
        spread(lanes, i, query_lanes);
        O* grad = grads + i * a.dim_;
        const int64_t y = top + token / a.p_.window, x = left + token % a.p_.window;
        copy(a.p_.grad.at(image, head * a.p_.head_dim, y, x), a.p_.head_dim, grad);
        spread(grad, i, grad_lanes);
      }
      query_matrix = query_stack(COUNT, queries, a.dim_, a.dim_);
      grad_matrix = grad_stack(COUNT, grads, a.dim_, a.dim_);
    }

    // Put the numbers of a row into lane i.
    CONVATTN_INLINE void spread(const O* row, int64_t i, O* to) const {
      to += i * N;
      for (int64_t c = 0; c < a.dim_; c += N, to += COUNT * N) std::memcpy(to, row + c, N * sizeof(O));
    }

    // Products of what lies in lanes with keys or values from token i on, added to what they begin with.
    CONVATTN_INLINE void products(const O* of_lanes, const O* token, Vector (&product)[ROWS][KEYS]) const {
      for (int64_t c = 0; c < a.p_.head_dim; c += N, of_lanes += COUNT * N) {
        Vector both[ROWS];
        CONVATTN_UNROLL(2)
        for (int r = 0; r < ROWS; ++r) both[r] = load_lanes(of_lanes + r * LANES * N);
        CONVATTN_UNROLL(8)
        for (int k = 0; k < KEYS; ++k) {
          const Vector number = broadcast(token + k * stride + c);
          CONVATTN_UNROLL(2)
          for (int r = 0; r < ROWS; ++r) product[r][k] = multiply_add(number, both[r], product[r][k], O());
        }
      }
    }

    // The softmax of the scores.
    void weigh(const float* const (&biases)[ROWS]) {
      Vector greatest[ROWS], total[ROWS] = {};
      std::fill(greatest, greatest + ROWS, splat(-INFINITY));
      for (int64_t i = 0; i < a.tokens_; i += KEYS) {
        Vector score[ROWS][KEYS];
        CONVATTN_UNROLL(2)
        for (int r = 0; r < ROWS; ++r)
          CONVATTN_UNROLL(8)
          for (int k = 0; k < KEYS; ++k) score[r][k] = load(biases[r] + (i + k) * LANES);
        products(query_lanes, operands + i * stride + a.dim_, score);
        CONVATTN_UNROLL(2)
        for (int r = 0; r < ROWS; ++r)
          CONVATTN_UNROLL(8)
          for (int k = 0; k < KEYS; ++k) store(scores + ((i + k) * ROWS + r) * LANES, score[r][k]);
      }
      for (int64_t i = 0; i < a.tokens_; ++i)
        for (int r = 0; r < ROWS; ++r) greatest[r] = max(greatest[r], load(scores + (i * ROWS + r) * LANES));
      for (int64_t i = 0; i < a.tokens_; ++i)
        for (int r = 0; r < ROWS; ++r) {
          float* at = scores + (i * ROWS + r) * LANES;
          const Vector weight = exp2<float>(at_least_smallest_exponent(load(at) - greatest[r]));
          total[r] += weight;
          store(at, weight);
        }
      for (int r = 0; r < ROWS; ++r) total[r] = 1.0f / total[r];
      for (int64_t i = 0; i < a.tokens_; ++i)
        for (int r = 0; r < ROWS; ++r) {
          const int64_t at = (i * ROWS + r) * LANES;
          store(weights + at, load(scores + at) * total[r]);
        }
    }

    // The gradients of the scores, which are those of the biases.
    void find_slopes(float* const (&sums_of_bias)[ROWS]) {
      Vector average[ROWS] = {};
      for (int64_t i = 0; i < a.tokens_; i += KEYS) {
        Vector slope[ROWS][KEYS] = {};
        products(grad_lanes, operands + i * stride + 2 * a.dim_, slope);
        CONVATTN_UNROLL(2)
        for (int r = 0; r < ROWS; ++r)
          CONVATTN_UNROLL(8)
          for (int k = 0; k < KEYS; ++k) store(scores + ((i + k) * ROWS + r) * LANES, slope[r][k]);
      }
      for (int64_t i = 0; i < a.tokens_; ++i)
        for (int r = 0; r < ROWS; ++r) {
          const int64_t at = (i * ROWS + r) * LANES;
          average[r] += load(weights + at) * load(scores + at);
        }
      for (int64_t i = 0; i < a.tokens_; ++i)
        for (int r = 0; r < ROWS; ++r) {
          const int64_t at = (i * ROWS + r) * LANES;
          const Vector slope = load(weights + at) * (load(scores + at) - average[r]);
          store(slopes + at, slope);
          float* sum = sums_of_bias[r] + i * LANES;
          store(sum, load(sum) + slope);
        }
    }

    void add_token_grads(int64_t vector) {
      float *of_keys = token_grads + a.dim_, *of_values = of_keys + a.dim_;
      multiply<O>(a.tokens_, weights, COUNT, COUNT, grad_matrix.data, a.dim_, of_values, stride, of_values, stride);
      multiply<O>(a.tokens_, slopes, COUNT, COUNT, query_matrix.data, a.dim_, of_keys, stride, of_keys, stride);
      std::fill(query_grads + 0, query_grads + COUNT * a.dim_, 0.0f);
      add_products(a.tokens_, slope_stack(a.tokens_, slopes, COUNT, COUNT), COUNT, keys, a.dim_, query_grads);
      for (int64_t i = 0; i < COUNT; ++i) {
        const int64_t token = a.places_.query_in(vector + i / LANES, i % LANES);
        if (token < 0) continue;
        for (int64_t c = 0; c < a.dim_; ++c) token_grads[token * stride + c] = query_grads[i * a.dim_ + c] * scale;
      }
    }

    static constexpr int N = TOGETHER<O>;
    static constexpr int64_t COUNT = ROWS * LANES;

    const WindowAttentionGradientKernel& a;
    float *sums, *bias_sums;
    const int64_t stride;  // of a token: query, key and value
    const float scale;
    const Buffer<O> pixels;                           // (tokens, channels)
    const Buffer<float> pixel_grads;                  // (tokens, channels)
    const Buffer<float> tokens, token_grads;          // (tokens, 3, dim)
    const Buffer<O> operands;                         // these as products take them, one after the other
    const Buffer<O> queries, grads;                   // (ROWS, LANES, dim)
    const Buffer<float> query_grads;                  // (ROWS, LANES, dim)
    const Buffer<O> query_lanes, grad_lanes;          // (dim / N, ROWS, LANES, N)
    const Buffer<O> lanes;                            // (dim)
    const Buffer<float> scores;                       // (tokens, ROWS, LANES)
    const Buffer<O> weights, slopes;                  // (tokens, ROWS, LANES)
    const Stack<O> key_stack, slope_stack, query_stack, grad_stack, pixel_stack, operand_stack;
    Stacked<O> keys{}, query_matrix{}, grad_matrix{};
    const Buffer<float> scratch;
    int64_t image = 0, top = 0, left = 0;
  };

  const WindowAttentionGradient<Number> p_;
  const int64_t tokens_;
  const QueryLanes places_;
  const int64_t channels_, depth_;
  const int64_t dim_, width_;  // of a head and of all channels, padded
  Matrix<O> projection_;       // (heads, depth, 3, dim)
  Matrix<O> back_;             // (heads, 3, dim, channels)
  const Buffer<float> start_;  // (heads, 3, dim)
  const Buffer<float> biases_;
  const Reader<Number> reader_;
  const NormGradient<Number> norm_;
  const Sums sums_;
};
