// What every kernel stands on, whatever the instruction set.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "gelu.h"
#include "parallel.h"
#include "problems.h"

#define CONVATTN_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define CONVATTN_UNROLL(n) CONVATTN_PRAGMA(unroll)
#else
#define CONVATTN_UNROLL(n) CONVATTN_PRAGMA(GCC unroll n)
#endif

#define CONVATTN_INLINE inline __attribute__((always_inline))
