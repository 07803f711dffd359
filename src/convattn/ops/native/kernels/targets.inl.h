// Every kernel for one instruction set. The including file sets NAMESPACE, LANES and REGISTERS.

namespace convattn {
namespace NAMESPACE {

#include "simd.inl.h"
#include "matmul.inl.h"
#include "conv_attention.inl.h"
#include "window_attention.inl.h"

inline void conv_attention(const ConvAttention& problem, int threads) {
  const ConvAttentionKernel kernel(problem);
  parallel_for(kernel.tasks(), threads, kernel);
}

inline void window_attention(const WindowAttention& problem, int threads) {
  const WindowAttentionKernel kernel(problem);
  parallel_for(kernel.tasks(), threads, kernel);
}

}  // namespace NAMESPACE
}  // namespace convattn

#undef NAMESPACE
#undef LANES
#undef REGISTERS
