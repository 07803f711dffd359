// Every kernel for one instruction set. The including file sets CONVATTN_NAMESPACE, CONVATTN_LANES,
// CONVATTN_REGISTERS and CONVATTN_BFLOAT16_PRODUCTS.

namespace convattn {
namespace CONVATTN_NAMESPACE {

#include "simd.inl.h"
#include "matmul.inl.h"
#include "pixels.inl.h"
#include "conv_attention.inl.h"
#include "convolution.inl.h"
#include "feed_forward.inl.h"
#include "pointwise.inl.h"
#include "window_attention.inl.h"

template <class Kernel, class Problem>
void compute(const Problem& problem, int threads) {
  const Kernel kernel(problem, threads);
  parallel_for(kernel.tasks(), threads, kernel);
}

template <class Number>
constexpr Kernels<Number> kernels = {
    &compute<ConvAttentionKernel<Number>, ConvAttention<Number>>,
    &compute<ConvolutionKernel<Number>, Convolution<Number>>,
    &compute<FeedForwardKernel<Number>, FeedForward<Number>>,
    &compute<PointwiseKernel<Number>, Convolution<Number>>,
    &compute<WindowAttentionKernel<Number>, WindowAttention<Number>>,
};

}  // namespace CONVATTN_NAMESPACE
}  // namespace convattn

#undef CONVATTN_NAMESPACE
#undef CONVATTN_LANES
#undef CONVATTN_REGISTERS
#undef CONVATTN_BFLOAT16_PRODUCTS
