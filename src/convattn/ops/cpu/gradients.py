"""Gradients of the operators by compiled kernels.

Each function takes the arguments of the kernel of its name in :mod:`convattn.ops.cpu.operators`, the
gradient of the result, and for each tensor among the arguments whether its gradient is wanted. It returns the
gradients of these tensors, in contiguous or channels-last memory; an empty tensor stands for one that is not
computed.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from convattn.ops.cpu import allocator, operators
from convattn.ops.cpu.library import (
    ConvAttentionGradient,
    ConvolutionGradient,
    FeedForwardGradient,
    Map,
    Norm,
    WindowAttentionGradient,
    run,
)
from convattn.ops.cpu.operators import (
    channels_last,
    conv_attention_problem,
    convolution_sizes,
    pixels_together,
    window_sizes,
)
from convattn.ops.padding import fold_reflection, reflect_pad
from convattn.ops.relative_bias import window_size

__all__ = ["conv_attention", "convolution", "feed_forward", "window_self_attention"]


def conv_attention(
    x: Tensor,
    large_kernel: Tensor,
    dynamic_kernel: Tensor,
    symmetric: bool,
    grad: Tensor,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """The gradient of a large kernel that has every symmetry is averaged over them."""
    x, grad = pixels_together(x), pixels_together(grad)
    sums = _Sums(large_kernel, dynamic_kernel)
    kernels = dict(large_kernel=large_kernel, dynamic_kernel=dynamic_kernel)
    forward = conv_attention_problem(x, grad, kernels, dynamic_size=dynamic_kernel.shape[-1])
    if not run("conv_attention_gradient", ConvAttentionGradient(forward, sums.pointer), x.dtype):
        x_grad, *of_kernels = _conv_attention_by_torch(x, large_kernel, dynamic_kernel, grad)
        return [x_grad if wanted[0] else grad.new_empty(0), *of_kernels]
    turned = large_kernel.transpose(0, 1), dynamic_kernel.flip(2, 3)
    mirrored = operators.conv_attention(grad, *turned, symmetric) if wanted[0] else None
    return [grad.new_empty(0) if mirrored is None else mirrored, *sums.gradients()]


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    other: Tensor | None,
    residual: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    epsilon: float,
    grad: Tensor,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """Of all but the residual, whose gradient is that of the result."""
    if weight.shape[-1] == 3 and other is not None:
        return _joined_3x3(x, weight, bias, other, residual, norm_weight, norm_bias, epsilon, grad, wanted)
    pointwise, norm = weight.shape[-1] == 1, Norm.of(norm_weight, norm_bias, epsilon)
    x, grad, weight = pixels_together(x), pixels_together(grad), weight.contiguous()
    other = None if other is None else pixels_together(other)
    if pointwise:
        x_grad = _empty_like(x) if wanted[0] else None
    else:
        x_grad = _through_3x3(grad, weight) if wanted[0] or norm.weight else None
    other_grad = None if other is None or not wanted[3] else _empty_like(other)
    sums = _Sums(weight, bias, norm_weight, norm_bias)
    maps, sizes = map(Map.of, (x, other, grad, x_grad, other_grad)), convolution_sizes(x, other, bias)
    problem = ConvolutionGradient(*maps, norm, weight.data_ptr(), sums.pointer, *sizes)
    run(f"{'pointwise' if pointwise else 'convolution'}_gradient", problem, x.dtype)
    weight_grad, bias_grad, *of_norm = sums.gradients()
    of_maps = [
        grad.new_empty(0) if computed is None else computed
        for computed, given in ((other_grad, other), (None, residual))
        if given is not None
    ]
    return [grad.new_empty(0) if x_grad is None else x_grad, weight_grad, bias_grad, *of_maps, *of_norm]


def _joined_3x3(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    other: Tensor,
    residual: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    epsilon: float,
    grad: Tensor,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """Of a 3×3 convolution on two maps, which is one on each."""
    own, others = weight.split((x.shape[1], other.shape[1]), 1)
    norm, none = (norm_weight, norm_bias, epsilon), (None, None, 0.0)
    x_grad, own_grad, bias_grad, *of_norm = convolution(x, own, bias, None, None, *norm, grad, wanted[:1])
    other_grad, others_grad, _ = convolution(other, others, bias, None, None, *none, grad, wanted[3:4])
    of_residual = [] if residual is None else [grad.new_empty(0)]
    return [x_grad, torch.cat((own_grad, others_grad), 1), bias_grad, other_grad, *of_residual, *of_norm]


def feed_forward(
    x: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor,
    project_weight: Tensor,
    project_bias: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    epsilon: float,
    grad: Tensor,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """Hidden channels are computed again, and stay in the cache."""
    parameters = (expand_weight, expand_bias, depthwise_weight, depthwise_bias, project_weight)
    weights = [parameter.contiguous() for parameter in parameters]
    x, grad, norm = pixels_together(x), pixels_together(grad), Norm.of(norm_weight, norm_bias, epsilon)
    x_grad = _empty_like(x) if wanted[0] else None
    sums = _Sums(*weights, project_bias, norm_weight, norm_bias)
    maps, pointers = map(Map.of, (x, grad, x_grad)), (weight.data_ptr() for weight in weights)
    problem = FeedForwardGradient(*maps, norm, *pointers, sums.pointer, *x.shape, len(expand_bias))
    run("feed_forward_gradient", problem, x.dtype)
    return [grad.new_empty(0) if x_grad is None else x_grad, *sums.gradients()]


def window_self_attention(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    relative_position_bias: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    epsilon: float,
    grad: Tensor,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """Tokens and scores are computed again, a window at a time."""
    (height, width), window = x.shape[2:], window_size(relative_position_bias)
    right, bottom = -width % window, -height % window
    x = pixels_together(reflect_pad(x, right=right, bottom=bottom))
    grad = pixels_together(F.pad(grad, (0, right, 0, bottom)) if right or bottom else grad)
    weights = [tensor.contiguous() for tensor in (weight, bias, relative_position_bias)]
    norm, x_grad = Norm.of(norm_weight, norm_bias, epsilon), _empty_like(x) if wanted[0] else None
    sums = _Sums(*weights, norm_weight, norm_bias)
    maps, pointers = map(Map.of, (x, grad, x_grad)), (tensor.data_ptr() for tensor in weights)
    sizes = window_sizes(x, relative_position_bias)
    problem = WindowAttentionGradient(*maps, norm, *pointers, sums.pointer, **sizes)
    run("window_attention_gradient", problem, x.dtype)
    if x_grad is None:
        return [grad.new_empty(0), *sums.gradients()]
    return [channels_last(fold_reflection(x_grad, height, width)), *sums.gradients()]


class _Sums:
    """Memory for the gradients of parameters, in float32; None stands for no parameter."""

    def __init__(self, *parameters: Tensor | None) -> None:
        self._parameters = [parameter for parameter in parameters if parameter is not None]
        self._numbers = torch.empty(sum(parameter.numel() for parameter in self._parameters))
        self.pointer = self._numbers.data_ptr()

    def gradients(self) -> list[Tensor]:
        """Those of each parameter, in its shape and dtype."""
        parts = self._numbers.split([parameter.numel() for parameter in self._parameters])
        return [
            part.view(parameter.shape).to(parameter.dtype, copy=True)
            for part, parameter in zip(parts, self._parameters, strict=True)
        ]


def _conv_attention_by_torch(
    x: Tensor, large_kernel: Tensor, dynamic_kernel: Tensor, grad: Tensor
) -> list[Tensor]:
    """Of a large kernel without these symmetries, whatever was said of it."""
    joined = [y.reshape(1, -1, *y.shape[2:]) for y in (x, grad)]
    through_large = _conv2d_gradient(x, large_kernel, grad)
    through_dynamic = _conv2d_gradient(joined[0], dynamic_kernel.flatten(0, 1)[:, None], joined[1])
    x_grad = through_large[0] + through_dynamic[0].view(x.shape)
    return [channels_last(x_grad), through_large[1], through_dynamic[1].view(dynamic_kernel.shape)]


def _conv2d_gradient(x: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Of a zero-padded convolution's input and weight; torch records nothing in an operation of its own."""
    groups, padding = x.shape[1] // weight.shape[1], [weight.shape[-1] // 2] * 2
    ones = [1, 1]
    x_grad, weight_grad, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, ones, padding, ones, False, [0, 0], groups, [True, True, False]
    )
    return x_grad, weight_grad


def _empty_like(x: Tensor) -> Tensor:
    return allocator.empty(x.shape, x.dtype)


def _through_3x3(grad: Tensor, weight: Tensor) -> Tensor | None:
    """What a 3×3 convolution hands back to its input: a 3×3 convolution with the kernel turned over."""
    turned = weight.flip(2, 3).transpose(0, 1)
    bias = weight.new_zeros(weight.shape[1])
    return operators.convolution(grad, turned, bias, None, None, None, None, 0.0)
