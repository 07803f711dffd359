"""The operators by compiled kernels, and how torch gets to know them."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..exporting import is_exporting
from .library import ConvAttention, FeedForward, Map, Pointwise, WindowAttention, library, run

__all__ = ["conv_attention", "feed_forward", "pointwise", "register", "takes", "window_attention"]


def takes(*tensors: Tensor) -> bool:
    """Whether the kernels are the right choice: there, made for these tensors, and no gradient is wanted."""
    if not _fit(*tensors) or _learns(*tensors):
        return False
    return not is_exporting() and not torch.is_autocast_enabled("cpu")


def _learns(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def register(
    kernel: Callable[..., Tensor | None],
    otherwise: Callable[..., Tensor],
    channels: Callable[..., int] = lambda x, *_: x.shape[1],
) -> Callable[..., Tensor]:
    """Make an operation that torch can differentiate and compile into a graph.

    Args:
        kernel: Computes a map of the size of its first argument; gives None for what it is not made for.
        otherwise: Computes the same from torch's own operations: what the kernel leaves, and gradients.
        channels: How many the result has.

    Returns:
        What computes it, ``torch.ops.convattn.<name of the kernel>`` where torch needs to know of it; the
        result lies in channels-last memory.
    """

    def forward(*args: Tensor) -> Tensor:
        out = kernel(*args) if _fit(*args) else None
        return _channels_last(otherwise(*args)) if out is None else out

    def fake(*args: Tensor) -> Tensor:
        x = args[0]
        shape = (x.shape[0], channels(*args), *x.shape[2:])
        return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)

    def keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [x.detach().requires_grad_(x.is_floating_point()) for x in ctx.saved_tensors]
        with torch.enable_grad():
            out = otherwise(*inputs)
        return torch.autograd.grad(out, inputs, grad)

    parameters = ", ".join(f"Tensor {name}" for name in inspect.signature(kernel).parameters)
    operation = torch.library.custom_op(
        f"convattn::{kernel.__name__}", forward, mutates_args=(), schema=f"({parameters}) -> Tensor"
    )
    operation.register_fake(fake)
    operation.register_autograd(backward, setup_context=keep)

    def choose(*args: Tensor) -> Tensor:
        # The first call of a custom operation imports torch's compiler: a second and 100 MB.
        direct = not torch.compiler.is_compiling() and not _learns(*args)
        return forward(*args) if direct else operation(*args)

    return choose


def conv_attention(x: Tensor, large_kernel: Tensor, dynamic_kernel: Tensor) -> Tensor | None:
    """As the operator, for a dense kernel that is equal to all its flips and rotations."""
    if large_kernel.shape[1] != x.shape[1]:
        return None
    large_kernel, dynamic_kernel = large_kernel.contiguous(), dynamic_kernel.contiguous()
    x = _pixels_together(x)
    out = torch.empty_like(x, memory_format=torch.channels_last)
    sizes = (*x.shape, large_kernel.shape[-1], dynamic_kernel.shape[-1])
    kernels = (large_kernel.data_ptr(), dynamic_kernel.data_ptr())
    return out if run("conv_attention", ConvAttention(Map.of(x), Map.of(out), *kernels, *sizes)) else None


def feed_forward(
    x: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor,
    project_weight: Tensor,
    project_bias: Tensor,
) -> Tensor:
    """As the function; hidden channels stay in the cache."""
    parameters = (expand_weight, expand_bias, depthwise_weight, depthwise_bias, project_weight, project_bias)
    weights = [parameter.contiguous() for parameter in parameters]
    x = _pixels_together(x)
    out = torch.empty_like(x, memory_format=torch.channels_last)
    pointers = (weight.data_ptr() for weight in weights)
    run("feed_forward", FeedForward(Map.of(x), Map.of(out), *pointers, *x.shape, len(expand_bias)))
    return out


def pointwise(x: Tensor, other: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """As the function; the maps are not joined in memory."""
    weight, bias, x, other = (
        weight.contiguous(),
        bias.contiguous(),
        _pixels_together(x),
        _pixels_together(other),
    )
    (pictures, channels, height, width), outs = x.shape, len(bias)
    out = torch.empty((pictures, outs, height, width), memory_format=torch.channels_last)
    sizes = (pictures, channels, other.shape[1], outs, height, width)
    run("pointwise", Pointwise(*map(Map.of, (x, other, out)), weight.data_ptr(), bias.data_ptr(), *sizes))
    return out


def window_attention(q: Tensor, k: Tensor, v: Tensor, relative_position_bias: Tensor) -> Tensor:
    """As the operator; memory grows with the map only."""
    table = relative_position_bias.contiguous()
    out = torch.empty_like(q, memory_format=torch.channels_last)
    pictures, channels, height, width = q.shape
    heads, window = len(table), (math.isqrt(table.shape[1]) + 1) // 2
    sizes = (pictures, heads, channels // heads, height, width, window)
    run("window_attention", WindowAttention(*map(Map.of, (q, k, v, out)), table.data_ptr(), *sizes))
    return out


def _fit(*tensors: Tensor) -> bool:
    return library is not None and all(x.device.type == "cpu" and x.dtype == torch.float32 for x in tensors)


def _pixels_together(x: Tensor) -> Tensor:
    """With the channels of a pixel side by side, copied where they are not."""
    return x if x.stride(1) == 1 else _channels_last(x)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
