// What the gradients of several operators are made of. Included once for each instruction set, inside its namespace.

#ifndef CONVATTN_NAMESPACE
#include "by_itself.h"
#include "simd.inl.h"
#include "matmul.inl.h"
#include "pixels.inl.h"
#endif

// Numbers that parts of the work sum up apart and that are added in a fixed order, so that a result does not depend
// on which thread computes what.
class Sums {
 public:
  static constexpr int64_t MOST = 64;  // parts, which bounds the memory

  Sums(int64_t pieces, int64_t count)
      : parts(std::min(pieces, MOST)), pieces_(pieces), count_(round_up(count, LANES)), data_(parts * count_) {
    std::fill(data_ + 0, data_ + parts * count_, 0.0f);
  }

  float* of(int64_t part) const { return data_ + part * count_; }

  // Call do_piece(piece, sums) for every piece of work of a part.
  template <class Piece>
  void compute(int64_t part, const Piece& do_piece) const {
    for (int64_t piece = part; piece < pieces_; piece += parts) do_piece(piece, of(part));
  }

  float* total() const {
    for (int64_t part = 1; part < parts; ++part) add(of(part), count_, of(0));
    return of(0);
  }

  const int64_t parts;

 private:
  const int64_t pieces_, count_;
  const Buffer<float> data_;
};

// Rows of a matrix without their padding.
inline float* unpad(const float* from, int64_t rows, int64_t columns, int64_t stride, float* to) {
  for (int64_t i = 0; i < rows; ++i, to += columns) std::copy(from + i * stride, from + i * stride + columns, to);
  return to;
}

// Pixels as products that sum over pixels read them: (pixels / TOGETHER, columns, TOGETHER).
template <class O>
struct Stacked {
  const O* data;
  int64_t stride;

  Stacked from(int64_t column) const { return {data + column * TOGETHER<O>, stride}; }
};

// Stacks tiles of pixels, in memory of its own where they do not lie that way already.
template <class O>
class Stack {
 public:
  Stack(int64_t pixels, int64_t columns)
      : data_(TOGETHER<O> == 1 ? LANES : round_up(pixels, TOGETHER<O>) * round_up(columns, LANES)) {}

  // Of columns padded to whole vectors; a missing last pixel is zero.
  CONVATTN_INLINE Stacked<O> operator()(int64_t pixels, const O* from, int64_t stride, int64_t columns) const {
    if constexpr (TOGETHER<O> == 1) return {from, stride};
    const int64_t width = round_up(columns, LANES) * TOGETHER<O>;
    O* to = data_;
    for (int64_t p = 0; p < pixels; p += TOGETHER<O>, from += TOGETHER<O> * stride, to += width)
      for (int64_t j = 0; j < columns; j += LANES) {
        Vector numbers[TOGETHER<O>];
        for (int i = 0; i < TOGETHER<O>; ++i)
          numbers[i] = p + i < pixels ? load(from + i * stride + j) : Vector{};
        store_lanes(to + j * TOGETHER<O>, side_by_side<O>(numbers));
      }
    return {data_, width};
  }

 private:
  const Buffer<O> data_;
};

template <int ROWS, int VECTORS, class O>
CONVATTN_INLINE void add_products_block(int64_t pixels, Stacked<O> a, Stacked<O> b, float* out, int64_t out_stride) {
  Vector sum[ROWS][VECTORS];
  CONVATTN_UNROLL(8)
  for (int r = 0; r < ROWS; ++r)
    CONVATTN_UNROLL(3)
    for (int j = 0; j < VECTORS; ++j) sum[r][j] = load(out + r * out_stride + j * LANES);
  for (int64_t p = 0; p < pixels; p += TOGETHER<O>, a.data += a.stride, b.data += b.stride) {
    Vector row[VECTORS];
    CONVATTN_UNROLL(3)
    for (int j = 0; j < VECTORS; ++j) row[j] = load_lanes(b.from(j * LANES).data);
    CONVATTN_UNROLL(8)
    for (int r = 0; r < ROWS; ++r) {
      const Vector number = broadcast(a.from(r).data);
      CONVATTN_UNROLL(3)
      for (int j = 0; j < VECTORS; ++j) sum[r][j] = multiply_add(number, row[j], sum[r][j], O());
    }
  }
  CONVATTN_UNROLL(8)
  for (int r = 0; r < ROWS; ++r)
    CONVATTN_UNROLL(3)
    for (int j = 0; j < VECTORS; ++j) store(out + r * out_stride + j * LANES, sum[r][j]);
}

template <int VECTORS, class O>
CONVATTN_INLINE void add_products_columns(int64_t pixels, Stacked<O> a, int64_t rows, Stacked<O> b, float* out,
                                          int64_t out_stride) {
  constexpr int ROWS = pixels_at_once(3);
  int64_t r = 0;
  for (; r + ROWS <= rows; r += ROWS)
    add_products_block<ROWS, VECTORS>(pixels, a.from(r), b, out + r * out_stride, out_stride);
  for (; r < rows; ++r)
    add_products_block<1, VECTORS>(pixels, a.from(r), b, out + r * out_stride, out_stride);
}

// out[i][j] += Σ_p a[p][i] · b[p][j] for i < rows, j < columns, a multiple of LANES which is also the stride of out.
template <class O>
inline void add_products(int64_t pixels, Stacked<O> a, int64_t rows, Stacked<O> b, int64_t columns, float* out) {
  for (int64_t j = 0; j < columns;) {
    const int64_t left = (columns - j) / LANES;
    if (left == 1) {
      add_products_columns<1>(pixels, a, rows, b.from(j), out + j, columns);
      j += LANES;
    } else if (left == 2 || left == 4) {
      add_products_columns<2>(pixels, a, rows, b.from(j), out + j, columns);
      j += 2 * LANES;
    } else {
      add_products_columns<3>(pixels, a, rows, b.from(j), out + j, columns);
      j += 3 * LANES;
    }
  }
}

// to[j] += Σ_p from[p][j]
template <class O>
inline void add_pixels(int64_t pixels, const O* from, int64_t columns, float* to) {
  for (int64_t p = 0; p < pixels; ++p) add(from + p * columns, columns, to);
}

struct Gelu {
  Vector value, slope;
};

// x Φ(x) and its derivative Φ(x) + x φ(x), with errors below 2e-6.
CONVATTN_INLINE Gelu gelu_and_slope(Vector x) {
  const Vector z = (Vector)((Integers)x & 0x7fffffff);
  const Vector decay = exp2<float>(at_least_smallest_exponent(x * x * -0.721347520f));
#if CONVATTN_LANES == 16
  const Vector tail = gelu_tail(x, z);
#else
  // As in gelu_tail, and exact enough for a derivative.
  static constexpr float POLYNOMIAL[] = {0.00079060383f,  -0.00165288175f, 0.000808734935f, -0.00137088668f, 0.00536109411f,
                                         -0.00970586714f, 0.0151019686f,   -0.0248828567f,  0.0397649956f,   -0.0598940366f,
                                         0.0853008726f,   -0.114033705f,   0.141331331f};
  const Vector t = (z > 5.0f ? splat(5.0f) : z) * 0.4f - 1.0f;
  Vector tail = splat(POLYNOMIAL[0]);
  CONVATTN_UNROLL(12)
  for (int i = 1; i < 13; ++i) tail = tail * t + POLYNOMIAL[i];
  tail = tail * decay;
#endif
  return {max(x, Vector{}) - z * tail, (x > 0.0f ? 1.0f - tail : tail) + x * decay * 0.398942280f};
}

// From gradients of normalized pixels to those of the pixels, and of the weight and bias of the normalization; where
// there is none, the gradients as they are.
template <class Number>
class NormGradient {
 public:
  NormGradient(const Norm<Number>& norm, int64_t channels)
      : normalizes_(norm.weight),
        epsilon_(static_cast<float>(norm.epsilon)),
        channels_(channels),
        padded_(round_up(channels, LANES)),
        weight_(norm.weight, channels) {}

  // How many floats the arguments of this name have room for.
  int64_t scratch() const { return 2 * padded_; }
  int64_t sums() const { return normalizes_ ? 2 * padded_ : 0; }

  CONVATTN_INLINE void write(const Number* from, const float* grad, float* scratch, float* sums, Number* to) const {
    if (!normalizes_) return to ? copy(grad, channels_, to) : void();
    float *x = scratch, *slope = scratch + padded_;
    for (int64_t c = padded_ - LANES; c < padded_; ++c) x[c] = slope[c] = 0;
    copy(from, channels_, x);
    copy(grad, channels_, slope);
    const float mean = sum(x) / channels_;
    for (int64_t c = 0; c < channels_; ++c) x[c] -= mean;  // padding stays zero
    const float factor = 1 / std::sqrt(product(x, x) / channels_ + epsilon_);
    for (int64_t c = 0; c < padded_; c += LANES) {
      const Vector normal = load(x + c) * factor, of_pixel = load(slope + c);
      store(sums + c, load(sums + c) + of_pixel * normal);
      store(sums + padded_ + c, load(sums + padded_ + c) + of_pixel);
      store(x + c, normal);
      store(slope + c, of_pixel * load(weight_ + c));
    }
    if (!to) return;
    const float along = product(slope, x) / channels_, average = sum(slope) / channels_;
    for (int64_t c = 0; c < padded_; c += LANES)
      store(slope + c, (load(slope + c) - average - load(x + c) * along) * factor);
    copy(slope, channels_, to);
  }

  // Weight and bias, as they lie in the sums, without padding.
  float* unpad_sums(const float* sums, float* to) const {
    return normalizes_ ? unpad(sums, 2, channels_, padded_, to) : to;
  }

 private:
  CONVATTN_INLINE float sum(const float* of) const {
    Vector all = {};
    for (int64_t c = 0; c < padded_; c += LANES) all += load(of + c);
    return sum_of(all);
  }

  CONVATTN_INLINE float product(const float* a, const float* b) const {
    Vector all = {};
    for (int64_t c = 0; c < padded_; c += LANES) all += load(a + c) * load(b + c);
    return sum_of(all);
  }

  const bool normalizes_;
  const float epsilon_;
  const int64_t channels_, padded_;
  const Parameter<Number> weight_;
};
