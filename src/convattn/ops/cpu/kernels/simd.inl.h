// Vectors of LANES floats. Included once for each instruction set, inside its namespace.
// GCC's and Clang's vector extensions: the compiler picks the instructions, but for a few that have no other name.

#ifndef CONVATTN_NAMESPACE
#include "by_itself.h"
#endif

static constexpr int LANES = CONVATTN_LANES;          // of a vector
static constexpr int REGISTERS = CONVATTN_REGISTERS;  // that hold vectors

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

CONVATTN_INLINE Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

CONVATTN_INLINE void store(float* to, Vector v) { std::memcpy(to, &v, sizeof v); }

CONVATTN_INLINE Vector load(const BFloat16* from) {
  Halves v;
  std::memcpy(&v, from, sizeof v);
  return (Vector)(__builtin_convertvector(v, Integers) << 16);
}

CONVATTN_INLINE void store(BFloat16* to, Vector v) {
#if CONVATTN_BFLOAT16_PRODUCTS
  const auto rounded = _mm512_cvtneps_pbh((__m512)v);
#else
  const Integers bits = (Integers)v, nearest = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Halves rounded = __builtin_convertvector(v == v ? nearest : Integers{} + 0x7fc0, Halves);
#endif
  std::memcpy(to, &rounded, sizeof rounded);
}

// Inline, as most are a few vectors long.
template <class From, class To>
CONVATTN_INLINE void copy(const From* from, int64_t count, To* to) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) store(to + i, load(from + i));
  for (; i < count; ++i) assign(to[i], to_float(from[i]));
}

CONVATTN_INLINE Vector splat(float x) { return x - Vector{}; }

CONVATTN_INLINE Vector max(Vector a, Vector b) { return a > b ? a : b; }

CONVATTN_INLINE float sum_of(Vector v) {
#if CONVATTN_LANES == 16
  return _mm512_reduce_add_ps((__m512)v);
#else
  float sum = 0;
  for (int i = 0; i < LANES; ++i) sum += v[i];
  return sum;
#endif
}

// The numbers that products are made of lie in lanes of 32 bits: one float, or two bfloat16 numbers side by side
// where the processor multiplies those. Elsewhere bfloat16 maps are computed in float.
#if CONVATTN_BFLOAT16_PRODUCTS
template <class Number>
using Operand = Number;
#else
template <class Number>
using Operand = float;
#endif

template <class O>
constexpr int TOGETHER = 4 / sizeof(O);

template <class O>
CONVATTN_INLINE Vector load_lanes(const O* from) {
  return load(reinterpret_cast<const float*>(from));
}

template <class O>
CONVATTN_INLINE void store_lanes(O* to, Vector lanes) {
  store(reinterpret_cast<float*>(to), lanes);
}

CONVATTN_INLINE Vector broadcast(const float* lane) { return splat(*lane); }

CONVATTN_INLINE Vector multiply_add(Vector a, Vector b, Vector sum, float) { return a * b + sum; }

template <class O>
CONVATTN_INLINE Vector side_by_side(const Vector (&numbers)[1]) {
  return numbers[0];
}

template <class O>
CONVATTN_INLINE Vector ones() {
  return (Vector)(Integers{} + (sizeof(O) == 2 ? 0x3f803f80 : 0x3f800000));
}

#if CONVATTN_BFLOAT16_PRODUCTS
CONVATTN_INLINE Vector broadcast(const BFloat16* lane) {
  int32_t both;
  std::memcpy(&both, lane, sizeof both);
  return (Vector)(both + Integers{});
}

CONVATTN_INLINE Vector multiply_add(Vector a, Vector b, Vector sum, BFloat16) {
  return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}

// Cut off, not rounded.
template <class O>
CONVATTN_INLINE Vector side_by_side(const Vector (&numbers)[2]) {
  const Integers low = (Integers)numbers[0] >> 16;
  return (Vector)_mm512_mask_blend_epi16(0xaaaaaaaa, (__m512i)low, (__m512i)numbers[1]);
}
#endif

// 2^x for −126 ≤ x < 127, with a relative error below 2e-7, or 2e-3 where bfloat16 is made of it.
template <class O>
CONVATTN_INLINE Vector exp2(Vector x) {
  const Vector shift = splat(12582912.0f);  // 1.5 · 2²³: adding it rounds to a whole number in the low bits
  const Vector shifted = x + shift;
  const Vector f = x - (shifted - shift);
  Vector p;
  if (sizeof(O) == 2) {
    p = splat(0.23842251f);
    p = p * f + 0.70343643f;
    p = p * f + 1.0004427f;
  } else {
    p = splat(0.00132647273f);
    p = p * f + 0.00967151299f;
    p = p * f + 0.0555073358f;
    p = p * f + 0.240222424f;
    p = p * f + 0.693147004f;
    p = p * f + 1.0f;
  }
  return (Vector)((Integers)p + ((Integers)shifted << 23));
}

// 2^−126 where x is less than −126. The order of the arguments keeps NaN.
CONVATTN_INLINE Vector at_least_smallest_exponent(Vector x) { return max(splat(-126.0f), x); }

// Φ(−z), where z = |x|.
CONVATTN_INLINE Vector gelu_tail(Vector x, Vector z) {
#if CONVATTN_LANES == 16
  const Vector last = splat(GeluTable::SIZE - 1), shift = splat(12582912.0f);  // rounds, as in exp2
  const Vector scaled = z * GELU_STEPS, t = scaled < last ? scaled : last;
  const Vector shifted = t + shift;
  const Vector f = t - (shifted - shift);
  Vector coefficient[4];
  CONVATTN_UNROLL(4)
  for (int i = 0; i < 4; ++i) {
    const float* table = GELU.coefficients[i];
    coefficient[i] =
        (Vector)_mm512_permutex2var_ps((__m512)load(table), (__m512i)shifted, (__m512)load(table + LANES));
  }
  return ((coefficient[3] * f + coefficient[2]) * f + coefficient[1]) * f + coefficient[0];
#else
  // Φ(−z) exp(z²/2) is smooth.
  const Vector t = (z > 5.0f ? splat(5.0f) : z) * 0.4f - 1.0f;  // [0, 5] to [−1, 1]; beyond, exp leaves nothing
  Vector p = splat(0.0276365709f);
  p = p * t + 0.00701210368f;
  p = p * t + 0.000315222016f;
  p = p * t - 0.042438563f;
  p = p * t + 0.0378840901f;
  p = p * t - 0.0573754683f;
  p = p * t + 0.0859411135f;
  p = p * t - 0.114053592f;
  p = p * t + 0.14132306f;
  return p * exp2<float>(at_least_smallest_exponent(x * x * -0.721347520f));
#endif
}

// x Φ(x) = max(x, 0) − |x| Φ(−|x|), with an error below 2e-6.
CONVATTN_INLINE Vector gelu(Vector x) {
  const Vector z = (Vector)((Integers)x & 0x7fffffff);
  return max(x, Vector{}) - z * gelu_tail(x, z);
}
