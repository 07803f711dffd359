// The C interface, and the choice of an instruction set at run time.
//
// One source is compiled once for each instruction set, with pragmas that a region's functions obey, so that a
// plain compiler call builds the library and nothing needs to be linked.

#if !defined(__clang__)
#pragma GCC optimize("no-tree-loop-distribute-patterns")  // short loops that fill or copy are no calls of memset
#endif

#include <utility>

#include "base.h"

#if defined(__clang__)
#define CONVATTN_BEGIN_TARGET(features) \
  CONVATTN_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define CONVATTN_END_TARGET CONVATTN_PRAGMA(clang attribute pop)
#else
#define CONVATTN_BEGIN_TARGET(features) CONVATTN_PRAGMA(GCC push_options) CONVATTN_PRAGMA(GCC target(features))
#define CONVATTN_END_TARGET CONVATTN_PRAGMA(GCC pop_options)
#endif

namespace convattn {

// The kernels of one instruction set for maps of floats or of bfloat16 numbers.
template <class Number>
struct Kernels {
  void (*conv_attention)(const ConvAttention<Number>&, int threads);
  void (*convolution)(const Convolution<Number>&, int threads);
  void (*feed_forward)(const FeedForward<Number>&, int threads);
  void (*pointwise)(const Convolution<Number>&, int threads);
  void (*window_attention)(const WindowAttention<Number>&, int threads);
  void (*conv_attention_gradient)(const ConvAttentionGradient<Number>&, int threads);
  void (*convolution_gradient)(const ConvolutionGradient<Number>&, int threads);
  void (*feed_forward_gradient)(const FeedForwardGradient<Number>&, int threads);
  void (*pointwise_gradient)(const ConvolutionGradient<Number>&, int threads);
  void (*window_attention_gradient)(const WindowAttentionGradient<Number>&, int threads);
};

}  // namespace convattn

#if defined(__x86_64__)

#define CONVATTN_NAMESPACE sse2
#define CONVATTN_LANES 4
#define CONVATTN_REGISTERS 16
#define CONVATTN_BFLOAT16_PRODUCTS 0
#include "targets.inl.h"

CONVATTN_BEGIN_TARGET("avx2,fma")
#define CONVATTN_NAMESPACE avx2
#define CONVATTN_LANES 8
#define CONVATTN_REGISTERS 16
#define CONVATTN_BFLOAT16_PRODUCTS 0
#include "targets.inl.h"
CONVATTN_END_TARGET

CONVATTN_BEGIN_TARGET("avx512f,avx512dq,avx512bw,avx512vl,fma")
#define CONVATTN_NAMESPACE avx512
#define CONVATTN_LANES 16
#define CONVATTN_REGISTERS 32
#define CONVATTN_BFLOAT16_PRODUCTS 0
#include "targets.inl.h"
CONVATTN_END_TARGET

CONVATTN_BEGIN_TARGET("avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,fma")
#define CONVATTN_NAMESPACE avx512_bf16
#define CONVATTN_LANES 16
#define CONVATTN_REGISTERS 32
#define CONVATTN_BFLOAT16_PRODUCTS 1
#include "targets.inl.h"
CONVATTN_END_TARGET

#else

#define CONVATTN_NAMESPACE vector128  // NEON and its like, which need no choice
#define CONVATTN_LANES 4
#define CONVATTN_REGISTERS 32
#define CONVATTN_BFLOAT16_PRODUCTS 0
#include "targets.inl.h"

#endif

namespace {

using namespace convattn;

struct InstructionSet {
  const char* name;
  bool supported;
  const Kernels<float>& of_float;
  const Kernels<BFloat16>& of_bfloat16;
};

// The last that the processor supports is used.
const InstructionSet INSTRUCTION_SETS[] = {
#if defined(__x86_64__)
    {"sse2", true, sse2::kernels<float>, sse2::kernels<BFloat16>},
    {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), avx2::kernels<float>,
     avx2::kernels<BFloat16>},
    {"avx512",
     __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl"),
     avx512::kernels<float>, avx512::kernels<BFloat16>},
    {"avx512_bf16", __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512bf16"), avx512::kernels<float>,
     avx512_bf16::kernels<BFloat16>},
#else
    {"vector128", true, vector128::kernels<float>, vector128::kernels<BFloat16>},
#endif
};

const InstructionSet* find(const char* name) {
  const InstructionSet* found = nullptr;
  for (const auto& set : INSTRUCTION_SETS)
    if (set.supported && (!name || std::strcmp(set.name, name) == 0)) found = &set;
  return found;
}

const InstructionSet* chosen = find(nullptr);

const Kernels<float>& kernels(float) { return chosen->of_float; }
const Kernels<BFloat16>& kernels(BFloat16) { return chosen->of_bfloat16; }

enum Status { DONE, NO_MEMORY, NOT_TAKEN };

template <class Problem>
bool taken(const Problem&) {
  return true;
}

// The large kernel must have every symmetry.
template <class Number>
bool taken(const ConvAttention<Number>& problem) {
  return problem.symmetric();
}

template <class Number>
bool taken(const ConvAttentionGradient<Number>& problem) {
  return problem.forward.symmetric();
}

// No exception may cross the C interface: the only one is a lack of memory.
template <class Problem>
int run(void (*kernel)(const Problem&, int), const Problem& problem, int threads) {
  try {
    if (!taken(problem)) return NOT_TAKEN;
    kernel(problem, threads);
    return DONE;
  } catch (const std::bad_alloc&) {
    return NO_MEMORY;
  }
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

int convattn_interface() { return INTERFACE; }

// Of a structure of problems.h, in bytes; −1 for a name that is none.
int64_t convattn_size_of(const char* name) {
  const std::pair<const char*, size_t> sizes[] = {
      {"ConvAttention", sizeof(ConvAttention<float>)},
      {"Convolution", sizeof(Convolution<float>)},
      {"FeedForward", sizeof(FeedForward<float>)},
      {"WindowAttention", sizeof(WindowAttention<float>)},
      {"ConvAttentionGradient", sizeof(ConvAttentionGradient<float>)},
      {"ConvolutionGradient", sizeof(ConvolutionGradient<float>)},
      {"FeedForwardGradient", sizeof(FeedForwardGradient<float>)},
      {"WindowAttentionGradient", sizeof(WindowAttentionGradient<float>)},
  };
  for (const auto& [known, size] : sizes)
    if (std::strcmp(name, known) == 0) return static_cast<int64_t>(size);
  return -1;
}

// Threads come from here: OpenMP's GOMP_parallel.
void convattn_use_openmp(void* parallel) { openmp_parallel = reinterpret_cast<OpenMPParallel>(parallel); }

const char* convattn_instruction_set() { return chosen->name; }

// Null picks the best. Returns whether there is such an instruction set here.
int convattn_use_instruction_set(const char* name) {
  const InstructionSet* found = find(name);
  if (found) chosen = found;
  return found != nullptr;
}

// One function for each kernel and kind of number; they return a Status.
#define CONVATTN_EXPORT(kernel, Problem, suffix, Number)                                            \
  int convattn_##kernel##_##suffix(const convattn::Problem<Number>* problem, int threads) { \
    return run(kernels(Number()).kernel, *problem, threads);                                \
  }
#define CONVATTN_EXPORT_BOTH(kernel, Problem)        \
  CONVATTN_EXPORT(kernel, Problem, float32, float)   \
  CONVATTN_EXPORT(kernel, Problem, bfloat16, BFloat16)

CONVATTN_EXPORT_BOTH(conv_attention, ConvAttention)
CONVATTN_EXPORT_BOTH(convolution, Convolution)
CONVATTN_EXPORT_BOTH(feed_forward, FeedForward)
CONVATTN_EXPORT_BOTH(pointwise, Convolution)
CONVATTN_EXPORT_BOTH(window_attention, WindowAttention)
CONVATTN_EXPORT_BOTH(conv_attention_gradient, ConvAttentionGradient)
CONVATTN_EXPORT_BOTH(convolution_gradient, ConvolutionGradient)
CONVATTN_EXPORT_BOTH(feed_forward_gradient, FeedForwardGradient)
CONVATTN_EXPORT_BOTH(pointwise_gradient, ConvolutionGradient)
CONVATTN_EXPORT_BOTH(window_attention_gradient, WindowAttentionGradient)
}
#pragma GCC visibility pop
