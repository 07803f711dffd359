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
        backend: A name in :data:`BACKENDS`; chosen by the function where it is None.

    Returns:
        (N, out, H, W).

    Raises:
        ValueError: The shapes do not fit together or the backend is unknown.
    """
    checks.convolution(x, weight, bias, other, residual, norm)
    return BACKENDS.run(backend, x, weight, bias, other, residual, *(norm or (None, None, 0.0)))


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


def _has_gradient(x: Tensor, weight: Tensor, bias: Tensor, other: Tensor | None, *_: Any) -> bool:
    return other is None or weight.shape[-1] == 1


def _suits_kernels(*args: Any) -> bool:
    return cpu.is_supported(*args) if _has_gradient(*args) else cpu.is_supported_for_inference(*args)


_cpu = cpu.register(
    cpu.convolution,
    _reference,
    channels=_channels,
    gradient=cpu.gradients.convolution,
    has_gradient=_has_gradient,
)

BACKENDS = Backends(
    Backend("reference", _reference),
    Backend("cpu", _cpu, is_best=_suits_kernels),
    default=_reference,
    channels=_channels,
)
