"""The operators by compiled kernels, on arguments that fit together.

Tensors have the shapes that they have in the function of the same name in :mod:`convattn.ops`;
``norm_weight`` and ``norm_bias`` are (C,).
"""

import math
from typing import Any

import torch
from torch import Tensor

from convattn.ops.cpu import allocator
from convattn.ops.cpu.library import ConvAttention, Convolution, FeedForward, Map, Norm, WindowAttention, run
from convattn.ops.relative_bias import window_size

__all__ = [
    "channels_last",
    "conv_attention",
    "conv_attention_problem",
    "convolution",
    "convolution_sizes",
    "feed_forward",
    "pixel_shuffle",
    "pixels_together",
    "pointwise_into",
    "predicted_conv_attention",
    "window_attention",
    "window_self_attention",
    "window_sizes",
]


def conv_attention(x: Tensor, large_kernel: Tensor, dynamic_kernel: Tensor, symmetric: bool) -> Tensor | None:
    """As the operator, for a dense kernel that is equal to all its flips and rotations."""
    kernels = dict(large_kernel=large_kernel, dynamic_kernel=dynamic_kernel)
    return _conv_attention(x, kernels, dynamic_size=dynamic_kernel.shape[-1])


def predicted_conv_attention(
    x: Tensor,
    large_kernel: Tensor,
    reduce_weight: Tensor,
    reduce_bias: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
) -> Tensor | None:
    """As the function, for such a kernel."""
    weights = dict(reduce_weight=reduce_weight, reduce_bias=reduce_bias)
    weights |= dict(large_kernel=large_kernel, expand_weight=expand_weight, expand_bias=expand_bias)
    hidden, size = len(reduce_bias), math.isqrt(len(expand_bias) // x.shape[1])
    return _conv_attention(x, weights, dynamic_size=size, hidden=hidden)


def _conv_attention(x: Tensor, weights: dict[str, Tensor], **sizes: int) -> Tensor | None:
    if weights["large_kernel"].shape[1] != x.shape[1]:
        return None
    x = pixels_together(x)
    out = allocator.empty(x.shape, x.dtype)
    problem = conv_attention_problem(x, out, weights, **sizes)
    return out if run("conv_attention", problem, x.dtype) else None


def conv_attention_problem(x: Tensor, out: Tensor, weights: dict[str, Tensor], **sizes: int) -> ConvAttention:
    """What the kernel and its gradient are given; it keeps the weights.

    Args:
        x: (N, C, H, W) with the channels of a pixel side by side.
        out: A map of the same kind; to the gradient, the gradient of the result.
        weights: Tensors by the names that they have in the structure.
        **sizes: Sizes that neither x nor the large kernel tells.
    """
    weights = {name: weight.contiguous() for name, weight in weights.items()}
    sizes |= dict(zip(("images", "channels", "height", "width"), x.shape, strict=True))
    pointers = {name: weight.data_ptr() for name, weight in weights.items()}
    size = weights["large_kernel"].shape[-1]
    problem = ConvAttention(x=Map.of(x), out=Map.of(out), size=size, **pointers, **sizes)
    problem.tensors = tuple(weights.values())
    return problem


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    other: Tensor | None,
    residual: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    epsilon: float,
) -> Tensor:
    """As the function; the maps are not joined in memory."""
    norm = Norm.of(norm_weight, norm_bias, epsilon)
    if weight.shape[-1] == 3 and other is not None:  # which the kernel does not take
        own, others = weight.split((x.shape[1], other.shape[1]), 1)
        residual = _convolution(other, others, torch.zeros_like(bias), None, residual, Norm())
        return _convolution(x, own, bias, None, residual, norm)
    return _convolution(x, weight, bias, other, residual, norm)


def pointwise_into(
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    other: Tensor | None,
    residual: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    epsilon: float,
) -> Tensor:
    """As :func:`convolution` for 1×1 kernels, written to a map that may hold pixels of the others."""
    norm = Norm.of(norm_weight, norm_bias, epsilon)
    return _convolution(x, weight, bias, other, residual, norm, out)


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    other: Tensor | None,
    residual: Tensor | None,
    norm: Norm,
    out: Tensor | None = None,
) -> Tensor:
    out = allocator.empty((len(x), len(bias), *x.shape[2:]), x.dtype) if out is None else out
    kernel = {1: "pointwise", 3: "convolution"}[weight.shape[-1]]
    weight, bias, x = weight.contiguous(), bias.contiguous(), pixels_together(x)
    other, residual = (None if y is None else pixels_together(y) for y in (other, residual))
    maps, sizes = map(Map.of, (x, other, residual, out)), convolution_sizes(x, other, bias)
    run(kernel, Convolution(*maps, norm, weight.data_ptr(), bias.data_ptr(), *sizes), x.dtype)
    return out


def convolution_sizes(x: Tensor, other: Tensor | None, bias: Tensor) -> tuple[int, ...]:
    """The sizes that the kernel and its gradient are given, in their order, for maps (N, C, H, W)."""
    images, channels, height, width = x.shape
    return images, channels, 0 if other is None else other.shape[1], len(bias), height, width


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
) -> Tensor:
    """As the function; hidden channels stay in the cache."""
    parameters = (expand_weight, expand_bias, depthwise_weight, depthwise_bias, project_weight, project_bias)
    weights = [parameter.contiguous() for parameter in parameters]
    x = pixels_together(x)
    out = allocator.empty(x.shape, x.dtype)
    norm = Norm.of(norm_weight, norm_bias, epsilon)
    pointers = (weight.data_ptr() for weight in weights)
    problem = FeedForward(Map.of(x), Map.of(out), norm, *pointers, *x.shape, len(expand_bias))
    run("feed_forward", problem, x.dtype)
    return out


def pixel_shuffle(x: Tensor, scale: int, skip: Tensor | None) -> Tensor:
    """As the function, in one pass over memory that is used again."""
    images, channels, height, width = x.shape
    channels //= scale**2
    out = allocator.empty((images, channels, scale * height, scale * width), x.dtype)
    pixels = x.unflatten(1, (channels, scale, scale)).transpose(2, 3)
    places = out.unflatten(3, (width, scale)).unflatten(2, (height, scale))
    for channel in range(channels):  # torch runs along rows then, not along the few numbers of a pixel
        for column in range(scale):
            source = pixels[:, channel, column].transpose(1, 2)
            place = places[:, channel, :, :, :, column]
            if skip is None:
                place.copy_(source)
            else:
                torch.add(source, skip[:, channel, :, None], out=place)
    return out


def window_attention(q: Tensor, k: Tensor, v: Tensor, relative_position_bias: Tensor) -> Tensor:
    """As the operator; memory grows with the map only."""
    q, k, v = map(pixels_together, (q, k, v))
    return _window_attention(relative_position_bias, q=q, k=k, v=v)


def window_self_attention(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    relative_position_bias: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    epsilon: float,
) -> Tensor:
    """As the function; queries, keys and values of one window are all that is in memory."""
    weight, bias = weight.contiguous(), bias.contiguous()
    norm = Norm.of(norm_weight, norm_bias, epsilon)
    projection = dict(norm=norm, weight=weight.data_ptr(), bias=bias.data_ptr())
    return _window_attention(relative_position_bias, x=pixels_together(x), **projection)


def _window_attention(table: Tensor, **given: Any) -> Tensor:
    table, maps = table.contiguous(), {name: x for name, x in given.items() if isinstance(x, Tensor)}
    like = next(iter(maps.values()))
    out = maps["out"] = allocator.empty(like.shape, like.dtype)
    given |= {name: Map.of(x) for name, x in maps.items()}
    problem = WindowAttention(**given, **window_sizes(out, table), table=table.data_ptr())
    run("window_attention", problem, out.dtype)
    return out


def window_sizes(x: Tensor, table: Tensor) -> dict[str, int]:
    """The sizes that the kernel and its gradient are given, by their names, for a map (N, C, H, W)."""
    images, channels, height, width = x.shape
    heads, window = len(table), window_size(table)
    return dict(
        images=images, heads=heads, head_dim=channels // heads, height=height, width=width, window=window
    )


def pixels_together(x: Tensor) -> Tensor:
    """The map (N, C, H, W) with the channels of a pixel side by side, copied where they are not."""
    return x if x.stride(1) == 1 else channels_last(x)


def channels_last(x: Tensor) -> Tensor:
    """The map (N, C, H, W) in channels-last memory."""
    return x.contiguous(memory_format=torch.channels_last)
