"""Small convolutions with what stands before and after them, so that maps are read and written once."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from convattn.ops import checks, cpu
from convattn.ops.backends import Backend, Backends
from convattn.ops.norm import Norm, normalize

__all__ = ["BACKENDS", "convolution"]


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    other: Tensor | None = None,
    residual: Tensor | None = None,
    norm: Norm | None = None,
    memory: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Convolve the channels of one or two maps, zero-padded: ``weight * [norm(x), other] + bias + residual``.

    Args:
        x: (N, C, H, W).
        weight: (out, C + C', 1, 1) or (out, C + C', 3, 3).
        bias: (out,).
        other: A second map, (N, C', H, W), whose channels follow those of ``x``.
        residual: Added to the result, (N, out, H, W).
        norm: Normalizes ``x`` first.
        memory: A map of the result's shape that is not needed afterwards, such as ``x`` itself: a backend may
            write the result of a 1×1 convolution there.
        backend: A name in :data:`BACKENDS`; chosen by the function where it is None.

    Returns:
        (N, out, H, W).

    Raises:
        ValueError: The shapes do not fit together or the backend is unknown.
    """
    checks.convolution(x, weight, bias, other, residual, norm)
    args = (x, weight, bias, other, residual, *(norm or (None, None, 0.0)))
    if memory is not None and backend is None and _suits_memory(memory, *args):
        return cpu.pointwise_into(memory, *cpu.lowered(args))  # type: ignore[arg-type]
    return BACKENDS.run(backend, *args)


def _reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    other: Tensor | None,
    residual: Tensor | None,
    *norm: Any,
) -> Tensor:
    """The definition."""
    x = normalize(x, *norm)
    x = x if other is None else torch.cat((x, other), 1)
    size = int(weight.shape[2])  # tracing for ONNX turns sizes into tensors
    out = F.conv2d(x, weight, bias, padding=size // 2)
    return out if residual is None else residual + out


def _channels(x: Tensor, weight: Tensor, *_: Any) -> int:
    return weight.shape[0]


def _suits_memory(memory: Tensor, x: Tensor, weight: Tensor, *others: Any) -> bool:
    """Whether the kernels may write to a map; a pixel is read before it is written."""
    if torch.compiler.is_compiling() or weight.shape[-1] != 1 or memory.stride(1) != 1:
        return False
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    fits = memory.dtype == dtype and memory.shape == (len(x), len(weight), *x.shape[2:])
    return fits and cpu.is_supported_for_inference(memory, x, weight, *others)


_cpu = cpu.register(cpu.convolution, _reference, channels=_channels, gradient=cpu.gradients.convolution)

BACKENDS = Backends(
    Backend("reference", _reference),
    Backend("cpu", _cpu, is_best=cpu.is_supported),
    default=_reference,
    channels=_channels,
)
