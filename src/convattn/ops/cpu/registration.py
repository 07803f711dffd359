"""When the compiled kernels are taken, and how torch gets to know them."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from convattn.ops.cpu.library import library
from convattn.ops.cpu.operators import channels_last
from convattn.ops.exporting import is_exporting
from convattn.ops.plain import are_plain, is_transformed

__all__ = ["disabled", "is_available", "is_supported", "is_supported_for_inference", "lowered", "register"]

Argument = Tensor | float | bool | None

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
    """Whether the kernels are the right choice: there, and made for these tensors."""
    return _fit(args, torch.is_autocast_enabled("cpu")) and not is_exporting()


def is_supported_for_inference(*args: Argument) -> bool:
    """Whether they are the right choice where gradients would be computed by torch."""
    return is_supported(*args) and not _learns(args)


Gradient = Callable[..., list[Tensor]]


def register(
    kernel: Callable[..., Tensor | None],
    fallback: Callable[..., Tensor],
    *,
    channels: Callable[..., int] = lambda x, *_: x.shape[1],
    gradient: Gradient | None = None,
    has_gradient: Callable[..., bool] = lambda *args: True,
) -> Callable[..., Tensor]:
    """Make an operation that torch can differentiate and compile into a graph.

    Args:
        kernel: Computes a map of the size of its first argument; gives None for what it is not made for. The
            gradient of an argument named ``residual`` is that of the result.
        fallback: Computes the same from torch's own operations: what the kernels leave.
        channels: How many the result has.
        gradient: A function of :mod:`convattn.ops.cpu.gradients`.
        has_gradient: Whether that is made for these arguments.

    Returns:
        What computes it, ``torch.ops.convattn.<name of the kernel>`` where torch needs to know of it; the
        result lies in channels-last memory.
    """
    parameters = inspect.signature(kernel).parameters
    names = list(parameters)
    schema = ", ".join(f"{_SCHEMA[parameter.annotation]} {name}" for name, parameter in parameters.items())

    def forward(*args: Argument) -> Tensor:
        out = kernel(*args) if _fit(args) else None
        return channels_last(fallback(*args)) if out is None else out

    def fake(*args: Any) -> Tensor:
        x = args[0]
        shape = (x.shape[0], channels(*args), *x.shape[2:])
        return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)

    operation = torch.library.custom_op(
        f"convattn::{kernel.__name__}", forward, mutates_args=(), schema=f"({schema}) -> Tensor"
    )
    operation.register_fake(fake)
    differentiate = gradient and _register_gradient(kernel.__name__, schema, names, gradient, fallback)
    backward = _backward(names, fallback, gradient, differentiate, has_gradient)
    operation.register_autograd(backward, setup_context=_keep)

    differentiable = _differentiable(forward, backward)

    def choose(*args: Argument) -> Tensor:
        args = lowered(args)
        if torch.compiler.is_compiling():
            return operation(*args)
        if not are_plain(_tensors(args)):
            return fallback(*args)
        return (differentiable if _learns(args) else forward)(*args)

    return choose


def _differentiable(
    compute: Callable[..., Tensor], differentiate: Callable[..., tuple[Tensor | None, ...]]
) -> Callable[..., Tensor]:
    """Return an operation without what torch puts around it, which takes a tenth of a training step."""

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Argument) -> Tensor:
            _keep(ctx, args, None)
            return compute(*args)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
            return differentiate(ctx, grad)

    return Differentiable.apply


def _backward(
    names: list[str],
    fallback: Callable[..., Tensor],
    gradient: Gradient | None,
    differentiate: Callable[..., list[Tensor]] | None,
    has_gradient: Callable[..., bool],
) -> Callable[..., tuple[Tensor | None, ...]]:
    """Return what computes the gradients of an operation, one for each of its arguments."""

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        args, wanted = _kept(ctx), list(ctx.needs_input_grad)
        found: Iterable[Tensor | None]
        if gradient and differentiate and _is_for_kernels(args) and has_gradient(*args):
            flags = [flag for flag, x in zip(wanted, args, strict=True) if isinstance(x, Tensor)]
            is_last = not torch.is_grad_enabled() and are_plain([grad, *_tensors(args)])
            found = (gradient if is_last else differentiate)(*args, grad, flags)
        else:
            found = _by_torch(fallback, args, grad)
        grads = iter(found)
        given = (next(grads) if isinstance(x, Tensor) else None for x in args)
        return tuple(
            (grad if name == "residual" else x) if flag else None
            for name, flag, x in zip(names, wanted, given, strict=True)
        )

    return backward


def _register_gradient(
    name: str, schema: str, names: list[str], gradient: Gradient, fallback: Callable[..., Tensor]
) -> Callable[..., list[Tensor]]:
    """Make the gradients an operation of their own, which torch differentiates by its own operations."""

    def fake(*args: Any) -> list[Tensor]:
        *inputs, grad, wanted = args
        tensors = [(name, x) for name, x in zip(names, inputs, strict=True) if isinstance(x, Tensor)]
        return [
            _like(x, name in _MAPS)
            if (flag or name not in _MAPS) and name != "residual"
            else grad.new_empty(0)
            for (name, x), flag in zip(tensors, wanted, strict=True)
        ]

    operation = torch.library.custom_op(
        f"convattn::{name}_backward",
        gradient,
        mutates_args=(),
        schema=f"({schema}, Tensor grad, bool[] wanted) -> Tensor[]",
    )
    operation.register_fake(fake)

    def backward(ctx: Any, grads: list[Tensor]) -> tuple[Tensor | None, ...]:
        *args, _ = _kept(ctx)

        def first(*args: Any) -> list[Tensor]:
            *inputs, grad = args
            found = _by_torch(fallback, inputs, grad)
            tensors = zip(computed, _tensors(inputs), found, strict=True)
            return [torch.zeros_like(x) if y is None else y for is_one, x, y in tensors if is_one]

        computed = [y is not None and y.numel() > 0 for y in grads]
        given = [y for y, is_one in zip(grads, computed, strict=True) if is_one]
        seconds = iter(_by_torch(first, args, given))
        return *(next(seconds) if isinstance(x, Tensor) else None for x in args), None

    operation.register_autograd(backward, setup_context=_keep)
    return operation


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.others = [None if isinstance(x, Tensor) else x for x in inputs]
    ctx.save_for_backward(*(x if isinstance(x, Tensor) else None for x in inputs))


def _kept(ctx: Any) -> list[Any]:
    return [other if x is None else x for x, other in zip(ctx.saved_tensors, ctx.others, strict=True)]


def _by_torch(function: Callable[..., Any], args: Iterable[Any], grad: Any) -> tuple[Tensor | None, ...]:
    """The gradients of every tensor among the arguments; they can be differentiated where that is wanted."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = [_leaf(x) if isinstance(x, Tensor) else x for x in args]
        out = function(*inputs)
    return torch.autograd.grad(out, _tensors(inputs), grad, create_graph=create_graph, allow_unused=True)


def _leaf(x: Tensor) -> Tensor:
    """The same numbers as an argument of its own."""
    return x.view_as(x) if x.requires_grad else x.detach().requires_grad_(x.is_floating_point())


def _is_for_kernels(args: Iterable[Any]) -> bool:
    """Whether gradients may be asked of the kernels; tensors may be the ones that torch traces with."""
    tensors = _tensors(args)
    known = all(x.dtype in _DTYPES and x.device.type == "cpu" for x in tensors)
    return _enabled and known and len({x.dtype for x in tensors}) == 1 and not is_transformed()


def _like(x: Tensor, is_map: bool) -> Tensor:
    memory_format = torch.channels_last if is_map else torch.contiguous_format
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format)


_MAPS = {"x", "other", "residual"}
_SCHEMA = {Tensor: "Tensor", Tensor | None: "Tensor?", float: "float", bool: "bool"}


def _tensors(args: Iterable[Argument]) -> list[Tensor]:
    return [x for x in args if isinstance(x, Tensor)]


def _learns(args: Iterable[Argument]) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in _tensors(args))


def lowered(args: tuple[Argument, ...]) -> tuple[Argument, ...]:
    """Return arguments with tensors in the precision that autocast, where it is on, gives to products."""
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
