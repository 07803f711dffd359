// Vectors of LANES floats. Included once for each instruction set, inside its namespace.
// GCC's and Clang's vector extensions: the compiler picks the instructions.

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));

#define INLINE inline __attribute__((always_inline))

INLINE Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

INLINE void store(float* to, Vector v) { std::memcpy(to, &v, sizeof v); }

// Inline, as most are a few vectors long.
INLINE void copy(const float* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) store(to + i, load(from + i));
  for (; i < count; ++i) to[i] = from[i];
}

INLINE Vector splat(float x) { return x - Vector{}; }

INLINE Vector max(Vector a, Vector b) { return a > b ? a : b; }

// Added to scores at LANES − n: the first n stay, the others become −∞.
struct Mask {
  float values[2 * LANES];
  constexpr Mask() : values() {
    for (int i = LANES; i < 2 * LANES; ++i) values[i] = -INFINITY;
  }
};
static constexpr Mask MASK;

INLINE float sum_of(Vector v) {
  float sum = 0;
  for (int i = 0; i < LANES; ++i) sum += v[i];
  return sum;
}

INLINE float max_of(Vector v) {
  float most = v[0];
  for (int i = 1; i < LANES; ++i) most = v[i] > most ? v[i] : most;
  return most;
}

// 2^x for −126 ≤ x < 127, with a relative error below 2e-7.
INLINE Vector exp2(Vector x) {
  const Vector shift = splat(12582912.0f);  // 1.5 · 2²³: adding it rounds to a whole number in the low bits
  const Vector shifted = x + shift;
  const Vector f = x - (shifted - shift);
  Vector p = splat(0.00132647273f);
  p = p * f + 0.00967151299f;
  p = p * f + 0.0555073358f;
  p = p * f + 0.240222424f;
  p = p * f + 0.693147004f;
  p = p * f + 1.0f;
  return (Vector)((Integers)p + ((Integers)shifted << 23));
}

// 2^−126 where x is less than −126. The order of the arguments keeps NaN.
INLINE Vector at_least_smallest_exponent(Vector x) { return max(splat(-126.0f), x); }

// x Φ(x), with an error below 2e-6: max(x, 0) − |x| Φ(−|x|), where Φ(−z) exp(z²/2) is smooth.
INLINE Vector gelu(Vector x) {
  const Vector z = max(x, -x);
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
  const Vector power = at_least_smallest_exponent(x * x * -0.721347520f);
  return max(x, Vector{}) - z * p * exp2(power);
}
