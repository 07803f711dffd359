// The C interface, and the choice of an instruction set at run time.
//
// One source is compiled once for each instruction set, with pragmas that a region's functions obey, so that a
// plain compiler call builds the library and nothing needs to be linked.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "parallel.h"
#include "problems.h"

#if defined(__clang__)
#define PRAGMA(text) _Pragma(#text)
#define UNROLL(n) PRAGMA(unroll)
#else
#define PRAGMA(text) _Pragma(#text)
#define UNROLL(n) PRAGMA(GCC unroll n)
#endif

#define INLINE inline __attribute__((always_inline))

#if defined(__x86_64__)

#define NAMESPACE sse2
#define LANES 4
#define REGISTERS 16
#include "targets.inl.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define NAMESPACE avx2
#define LANES 8
#define REGISTERS 16
#include "targets.inl.h"
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,fma")
#endif
#define NAMESPACE avx512
#define LANES 16
#define REGISTERS 32
#include "targets.inl.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else

#define NAMESPACE vector128  // NEON and its like, which need no choice
#define LANES 4
#define REGISTERS 32
#include "targets.inl.h"

#endif

namespace {

using namespace convattn;

struct InstructionSet {
  const char* name;
  bool supported;
  void (*conv_attention)(const ConvAttention&, int threads);
  void (*feed_forward)(const FeedForward&, int threads);
  void (*pointwise)(const Pointwise&, int threads);
  void (*window_attention)(const WindowAttention&, int threads);
};

#define INSTRUCTION_SET(name, supported) {#name, supported, name::conv_attention, name::feed_forward, name::pointwise, name::window_attention}

// The last that the processor supports is used.
const InstructionSet INSTRUCTION_SETS[] = {
#if defined(__x86_64__)
    INSTRUCTION_SET(sse2, true),
    INSTRUCTION_SET(avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")),
    INSTRUCTION_SET(avx512, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                                __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")),
#else
    INSTRUCTION_SET(vector128, true),
#endif
};

const InstructionSet* find(const char* name) {
  const InstructionSet* found = nullptr;
  for (const auto& set : INSTRUCTION_SETS)
    if (set.supported && (!name || std::strcmp(set.name, name) == 0)) found = &set;
  return found;
}

const InstructionSet* chosen = find(nullptr);

// No exception may cross the C interface: the only one is a lack of memory.
template <class Kernel, class Problem>
int run(Kernel kernel, const Problem* problem, int threads) {
  try {
    kernel(*problem, threads);
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// Threads come from here: OpenMP's GOMP_parallel.
void convattn_use_openmp(void* parallel) { openmp_parallel = reinterpret_cast<OpenMPParallel>(parallel); }

const char* convattn_instruction_set() { return chosen->name; }

// Null picks the best. Returns whether there is such an instruction set here.
int convattn_use_instruction_set(const char* name) {
  const InstructionSet* found = find(name);
  if (found) chosen = found;
  return found != nullptr;
}

// These return 0, or 1 where memory was lacking.

// Also 2 where the large kernel lacks a symmetry; then nothing is computed.
int convattn_conv_attention(const ConvAttention* problem, int threads) {
  return problem->symmetric() ? run(chosen->conv_attention, problem, threads) : 2;
}

int convattn_feed_forward(const FeedForward* problem, int threads) {
  return run(chosen->feed_forward, problem, threads);
}

int convattn_pointwise(const Pointwise* problem, int threads) { return run(chosen->pointwise, problem, threads); }

int convattn_window_attention(const WindowAttention* problem, int threads) {
  return run(chosen->window_attention, problem, threads);
}
}
#pragma GCC visibility pop
