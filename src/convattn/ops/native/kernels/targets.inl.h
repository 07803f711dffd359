// Every kernel for one instruction set. The including file sets NAMESPACE, LANES and REGISTERS.

namespace convattn {
namespace NAMESPACE {

#include "simd.inl.h"
#include "matmul.inl.h"
#include "conv_attention.inl.h"
#include "feed_forward.inl.h"
#include "pointwise.inl.h"
#include "window_attention.inl.h"

template <class Kernel, class Problem>
void compute(const Problem& problem, int threads) {
  const Kernel kernel(problem);
  parallel_for(kernel.tasks(), threads, kernel);
}

constexpr auto conv_attention = &compute<ConvAttentionKernel, ConvAttention>;
constexpr auto feed_forward = &compute<FeedForwardKernel, FeedForward>;
constexpr auto pointwise = &compute<PointwiseKernel, Pointwise>;
constexpr auto window_attention = &compute<WindowAttentionKernel, WindowAttention>;

}  // namespace NAMESPACE
}  // namespace convattn

#undef NAMESPACE
#undef LANES
#undef REGISTERS
