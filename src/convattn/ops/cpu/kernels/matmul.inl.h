// Products of pixels with a matrix. Included once for each instruction set, inside its namespace.

#ifndef CONVATTN_NAMESPACE
#include "by_itself.h"
#include "simd.inl.h"
#endif

// How many pixels share each vector of the matrix that is loaded: as many as leave the registers to the sums.
constexpr int pixels_at_once(int vectors) {
  return REGISTERS == 32 ? (vectors == 1 ? 16 : 8) : (vectors == 1 ? 8 : 4);
}
static constexpr int PIXELS = pixels_at_once(1);  // buffers of pixels are padded to a multiple of this

constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// A matrix (in, out) as products read it: (in / TOGETHER, columns, TOGETHER), padded with zeros to ``depth`` and
// ``columns``.
template <class O>
class Matrix {
 public:
  Matrix(int64_t in, int64_t out)
      : depth(round_up(in, TOGETHER<O>)), columns(round_up(out, LANES)), data_(depth * columns) {
    std::memset(data_, 0, depth * columns * sizeof(O));
  }

  void set(int64_t i, int64_t j, float value) {
    assign(data_[(i / TOGETHER<O> * columns + j) * TOGETHER<O> + i % TOGETHER<O>], value);
  }

  // From row i, a multiple of TOGETHER, on.
  const O* from(int64_t i) const { return data_ + i * columns; }

  const int64_t depth, columns;

 private:
  const Buffer<O> data_;
};

template <int VECTORS, class O>
CONVATTN_INLINE void multiply_columns(const O* in, int64_t in_stride, int64_t depth, const O* matrix, int64_t columns,
                             const float* start, int64_t start_stride, float* out, int64_t out_stride) {
  constexpr int ROWS = pixels_at_once(VECTORS);
  Vector sum[ROWS][VECTORS];
  CONVATTN_UNROLL(16)
  for (int r = 0; r < ROWS; ++r)
    CONVATTN_UNROLL(3)
    for (int j = 0; j < VECTORS; ++j) sum[r][j] = load(start + r * start_stride + j * LANES);
  for (int64_t k = 0; k < depth; k += TOGETHER<O>, matrix += columns * TOGETHER<O>) {
    Vector row[VECTORS];
    CONVATTN_UNROLL(3)
    for (int j = 0; j < VECTORS; ++j) row[j] = load_lanes(matrix + j * LANES * TOGETHER<O>);
    CONVATTN_UNROLL(16)
    for (int r = 0; r < ROWS; ++r) {
      const Vector number = broadcast(in + r * in_stride + k);
      CONVATTN_UNROLL(3)
      for (int j = 0; j < VECTORS; ++j) sum[r][j] = multiply_add(number, row[j], sum[r][j], O());
    }
  }
  CONVATTN_UNROLL(16)
  for (int r = 0; r < ROWS; ++r)
    CONVATTN_UNROLL(3)
    for (int j = 0; j < VECTORS; ++j) store(out + r * out_stride + j * LANES, sum[r][j]);
}

template <int VECTORS, class O>
CONVATTN_INLINE void multiply_block(int64_t pixels, const O* in, int64_t in_stride, int64_t depth, const O* matrix,
                           int64_t columns, const float* start, int64_t start_stride, float* out, int64_t out_stride) {
  for (int64_t p = 0; p < pixels; p += pixels_at_once(VECTORS))
    multiply_columns<VECTORS>(in + p * in_stride, in_stride, depth, matrix, columns, start + p * start_stride,
                              start_stride, out + p * out_stride, out_stride);
}

// out[p][j] = start[p][j] + Σ_k in[p][k] · matrix[k][j]; a bias is a start of stride 0. ``columns`` is a multiple
// of LANES, ``depth`` one of TOGETHER; ``in`` and ``out`` have room for a multiple of PIXELS and may be read and
// written that far.
template <class O>
inline void multiply(int64_t pixels, const O* in, int64_t in_stride, int64_t depth, const O* matrix, int64_t columns,
                     const float* start, int64_t start_stride, float* out, int64_t out_stride) {
  for (int64_t j = 0; j < columns;) {
    const int64_t left = (columns - j) / LANES;
    const O* column = matrix + j * TOGETHER<O>;
    if (left == 1) {
      multiply_block<1>(pixels, in, in_stride, depth, column, columns, start + j, start_stride, out + j, out_stride);
      j += LANES;
    } else if (left == 2 || left == 4) {
      multiply_block<2>(pixels, in, in_stride, depth, column, columns, start + j, start_stride, out + j, out_stride);
      j += 2 * LANES;
    } else {
      multiply_block<3>(pixels, in, in_stride, depth, column, columns, start + j, start_stride, out + j, out_stride);
      j += 3 * LANES;
    }
  }
}
