// Every kernel for one instruction set. The including file sets NAMESPACE, LANES, REGISTERS and BFLOAT16_PRODUCTS.

namespace convattn {
namespace NAMESPACE {

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

}  // namespace NAMESPACE
}  // namespace convattn

#undef NAMESPACE
#undef LANES
#undef REGISTERS
#undef BFLOAT16_PRODUCTS
