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

#include "gradients.inl.h"
#include "conv_attention_gradient.inl.h"
#include "convolution_gradient.inl.h"
#include "feed_forward_gradient.inl.h"
#include "pointwise_gradient.inl.h"
#include "query_lanes.inl.h"
#include "window_attention_gradient.inl.h"

template <class Kernel, class Problem>
void compute(const Problem& problem, int threads) {
  const Kernel kernel(problem, threads);
  parallel_for(kernel.tasks(), threads, kernel);
}

// Of kernels that sum over all their tasks.
template <class Kernel, class Problem>
void compute_and_finish(const Problem& problem, int threads) {
  const Kernel kernel(problem, threads);
  parallel_for(kernel.tasks(), threads, kernel);
  kernel.finish();
}

template <class Number>
constexpr Kernels<Number> kernels = {
    &compute<ConvAttentionKernel<Number>, ConvAttention<Number>>,
    &compute<ConvolutionKernel<Number>, Convolution<Number>>,
    &compute<FeedForwardKernel<Number>, FeedForward<Number>>,
    &compute<PointwiseKernel<Number>, Convolution<Number>>,
    &compute<WindowAttentionKernel<Number>, WindowAttention<Number>>,
    &compute_and_finish<ConvAttentionGradientKernel<Number>, ConvAttentionGradient<Number>>,
    &compute_and_finish<ConvolutionGradientKernel<Number>, ConvolutionGradient<Number>>,
    &compute_and_finish<FeedForwardGradientKernel<Number>, FeedForwardGradient<Number>>,
    &compute_and_finish<PointwiseGradientKernel<Number>, ConvolutionGradient<Number>>,
    &compute_and_finish<WindowAttentionGradientKernel<Number>, WindowAttentionGradient<Number>>,
};

}  // namespace CONVATTN_NAMESPACE
}  // namespace convattn

#undef CONVATTN_NAMESPACE
#undef CONVATTN_LANES
#undef CONVATTN_REGISTERS
#undef CONVATTN_BFLOAT16_PRODUCTS
