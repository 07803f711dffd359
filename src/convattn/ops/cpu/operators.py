"""The operators by compiled kernels, and how torch gets to know them."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from convattn.ops.cpu import allocator
from convattn.ops.cpu.library import (
    ConvAttention,
    Convolution,
    FeedForward,
    Map,
    Norm,
    WindowAttention,
    library,
    run,
)
from convattn.ops.exporting import is_exporting

__all__ = [
    "conv_attention",
    "convolution",
    "disabled",
    "feed_forward",
    "is_available",
    "is_supported",
    "predicted_conv_attention",
    "register",
    "window_attention",
    "window_self_attention",
]

Argument = Tensor | float | None

_enabled = library is not None


def is_available() -> bool:
    """Whether the kernels are there and not disabled."""
    return _enabled


@contextmanager
def disabled() -> Iterator[None]:
    """Meanwhile, in every thread, torch's own operations compute everything."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


def is_supported(*args: Argument) -> bool:
    """Whether the kernels are the right choice: there, made for these tensors, and no gradient is wanted."""
    return _fit(args, torch.is_autocast_enabled("cpu")) and not _learns(args) and not is_exporting()


def _tensors(args: Iterable[Argument]) -> list[Tensor]:
    return [x for x in args if isinstance(x, Tensor)]


def _learns(args: Iterable[Argument]) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in _tensors(args))


def _lowered(args: tuple[Argument, ...]) -> tuple[Argument, ...]:
    """With tensors in the precision that autocast, where it is on, gives to products."""
    if not torch.is_autocast_enabled("cpu"):
        return args
    dtype = torch.get_autocast_dtype("cpu")
    return tuple(x.to(dtype) if isinstance(x, Tensor) and x.device.type == "cpu" else x for x in args)


def register(
    kernel: Callable[..., Tensor | None],
    fallback: Callable[..., Tensor],
    channels: Callable[..., int] = lambda x, *_: x.shape[1],
) -> Callable[..., Tensor]:
    """Make an operation that torch can differentiate and compile into a graph.

    Args:
        kernel: Computes a map of the size of its first argument; gives None for what it is not made for.
        fallback: Computes the same from torch's own operations: what the kernel leaves, and gradients.
        channels: How many the result has.

    Returns:
        What computes it, ``torch.ops.convattn.<name of the kernel>`` where torch needs to know of it; the
        result lies in channels-last memory.
    """

    def forward(*args: Argument) -> Tensor:
        out = kernel(*args) if _fit(args) else None
        return _channels_last(fallback(*args)) if out is None else out

    def fake(*args: Any) -> Tensor:
        x = args[0]
        shape = (x.shape[0], channels(*args), *x.shape[2:])
        return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)

    def keep(ctx: Any, inputs: tuple[Argument, ...], output: Tensor) -> None:
        ctx.others = [None if isinstance(x, Tensor) else x for x in inputs]
        ctx.save_for_backward(*(x if isinstance(x, Tensor) else None for x in inputs))

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [
            other if x is None else x.detach().requires_grad_(x.is_floating_point())
            for x, other in zip(ctx.saved_tensors, ctx.others, strict=True)
        ]
        with torch.enable_grad():
            out = fallback(*inputs)
        grads = iter(torch.autograd.grad(out, _tensors(inputs), grad, allow_unused=True))
        return tuple(next(grads) if isinstance(x, Tensor) else None for x in inputs)

    parameters = inspect.signature(kernel).parameters.values()
    schema = ", ".join(f"{_SCHEMA[parameter.annotation]} {parameter.name}" for parameter in parameters)
    operation = torch.library.custom_op(
        f"convattn::{kernel.__name__}", forward, mutates_args=(), schema=f"({schema}) -> Tensor"
    )
    operation.register_fake(fake)
    operation.register_autograd(backward, setup_context=keep)

    def choose(*args: Argument) -> Tensor:
        # The first call of a custom operation imports torch's compiler: a second and 100 MB.
        direct = not torch.compiler.is_compiling() and not _learns(args)
        return (forward if direct else operation)(*_lowered(args))

    return choose


_SCHEMA = {Tensor: "Tensor", Tensor | None: "Tensor?", float: "float"}


def conv_attention(x: Tensor, large_kernel: Tensor, dynamic_kernel: Tensor) -> Tensor | None:
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
    channels, hidden, numbers = x.shape[1], len(reduce_bias), len(expand_bias)
    size = math.isqrt(numbers // channels)
    _expect("reduce_weight", reduce_weight, (hidden, channels, 1, 1))
    _expect("expand_weight", expand_weight, (channels * size * size, hidden, 1, 1))
    _expect("expand_bias", expand_bias, (channels * size * size,))
    return _conv_attention(x, weights, dynamic_size=size, hidden=hidden)


def _conv_attention(x: Tensor, weights: dict[str, Tensor], **sizes: int) -> Tensor | None:
    if weights["large_kernel"].shape[1] != x.shape[1]:
        return None
    weights = {name: weight.contiguous() for name, weight in weights.items()}
    x = _pixels_together(x)
    out = allocator.empty(x.shape, x.dtype)
    sizes |= dict(zip(("images", "channels", "height", "width"), x.shape, strict=True))
    pointers = {name: weight.data_ptr() for name, weight in weights.items()}
    size = weights["large_kernel"].shape[-1]
    problem = ConvAttention(x=Map.of(x), out=Map.of(out), size=size, **pointers, **sizes)
    return out if run("conv_attention", problem, x.dtype) else None


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    other: Tensor | None,
    residual: Tensor | None,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    epsilon: float,
) -> Tensor | None:
    """As the function, but for 3×3 kernels on two maps; the maps are not joined in memory."""
    kernel = {1: "pointwise", 3: "convolution"}[weight.shape[-1]]
    if kernel == "convolution" and other is not None:
        return None
    channels, outs = x.shape[1] + (0 if other is None else other.shape[1]), len(bias)
    _expect("weight", weight, (outs, channels, *weight.shape[2:]))
    for name, y, of in (("other", other, channels - x.shape[1]), ("residual", residual, outs)):
        if y is not None:
            _expect(name, y, (len(x), of, *x.shape[2:]))
    weight, bias, x = weight.contiguous(), bias.contiguous(), _pixels_together(x)
    other, residual = (None if y is None else _pixels_together(y) for y in (other, residual))
    (images, channels, height, width), outs = x.shape, len(bias)
    out = allocator.empty((images, outs, height, width), x.dtype)
    norm = Norm.of(norm_weight, norm_bias, epsilon)
    others = 0 if other is None else other.shape[1]
    sizes = (images, channels, others, outs, height, width)
    maps = map(Map.of, (x, other, residual, out))
    run(kernel, Convolution(*maps, norm, weight.data_ptr(), bias.data_ptr(), *sizes), x.dtype)
    return out


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
    x = _pixels_together(x)
    out = allocator.empty(x.shape, x.dtype)
    norm = Norm.of(norm_weight, norm_bias, epsilon)
    pointers = (weight.data_ptr() for weight in weights)
    problem = FeedForward(Map.of(x), Map.of(out), norm, *pointers, *x.shape, len(expand_bias))
    run("feed_forward", problem, x.dtype)
    return out


def window_attention(q: Tensor, k: Tensor, v: Tensor, relative_position_bias: Tensor) -> Tensor:
    """As the operator; memory grows with the map only."""
    q, k, v = map(_pixels_together, (q, k, v))
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
    channels = x.shape[1]
    _expect("weight", weight, (3 * channels, channels, 1, 1))
    _expect("bias", bias, (3 * channels,))
    weight, bias = weight.contiguous(), bias.contiguous()
    norm = Norm.of(norm_weight, norm_bias, epsilon)
    projection = dict(norm=norm, weight=weight.data_ptr(), bias=bias.data_ptr())
    return _window_attention(relative_position_bias, x=_pixels_together(x), **projection)


def _window_attention(table: Tensor, **given: Any) -> Tensor:
    table, maps = table.contiguous(), {name: x for name, x in given.items() if isinstance(x, Tensor)}
    like = next(iter(maps.values()))
    out = maps["out"] = allocator.empty(like.shape, like.dtype)
    images, channels, height, width = out.shape
    heads, window = len(table), (math.isqrt(table.shape[1]) + 1) // 2
    sizes = dict(
        images=images, heads=heads, head_dim=channels // heads, height=height, width=width, window=window
    )
    given |= {name: Map.of(x) for name, x in maps.items()}
    run("window_attention", WindowAttention(**given, **sizes, table=table.data_ptr()), out.dtype)
    return out


def _expect(name: str, x: Tensor, shape: tuple[int, ...]) -> None:
    """Raise a ValueError where memory would be read that is not the tensor's."""
    if x.shape != shape:
        raise ValueError(f"{name} must be {shape}, not {tuple(x.shape)}")


def _fit(args: Iterable[Argument], autocast: bool = False) -> bool:
    """Whether the kernels are made for these tensors, or for what autocast turns them into."""
    tensors = _tensors(args)
    dtypes = {torch.get_autocast_dtype("cpu")} if autocast else {x.dtype for x in tensors}
    cpu = all(x.device.type == "cpu" and x.dtype in _DTYPES for x in tensors)
    return _enabled and cpu and len(dtypes) == 1 and dtypes <= _DTYPES


_DTYPES = {torch.float32, torch.bfloat16}


def _pixels_together(x: Tensor) -> Tensor:
    """With the channels of a pixel side by side, copied where they are not."""
    return x if x.stride(1) == 1 else _channels_last(x)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
