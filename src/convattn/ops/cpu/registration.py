"""When the compiled kernels are taken, and how torch gets to know them."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from convattn.ops.cpu.library import library
from convattn.ops.exporting import is_exporting
from convattn.ops.plain import are_plain

__all__ = ["disabled", "is_available", "is_supported", "register"]

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
        args = _lowered(args)
        if torch.compiler.is_compiling():
            return operation(*args)
        if not are_plain(_tensors(args)):
            return fallback(*args)
        # The first call of a custom operation imports torch's compiler: a second and 100 MB.
        return (operation if _learns(args) else forward)(*args)

    return choose


_SCHEMA = {Tensor: "Tensor", Tensor | None: "Tensor?", float: "float"}


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


def _fit(args: Iterable[Argument], autocast: bool = False) -> bool:
    """Whether the kernels are made for these tensors, or for what autocast turns them into."""
    tensors = _tensors(args)
    dtypes = {torch.get_autocast_dtype("cpu")} if autocast else {x.dtype for x in tensors}
    known = all(x.dtype in _DTYPES for x in tensors)
    return _enabled and known and len(dtypes) == 1 and dtypes <= _DTYPES and are_plain(tensors)


_DTYPES = {torch.float32, torch.bfloat16}


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
