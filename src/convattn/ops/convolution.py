"""Small convolutions with what stands before and after them, so that maps are read and written once."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from convattn.ops import cpu
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
        ValueError: The kernel has another size, or the backend is unknown.
    """
    if _size(weight) not in ((1, 1), (3, 3)):
        raise ValueError(f"weight must be (out, in, 1, 1) or (out, in, 3, 3), not {tuple(weight.shape)}")
    args = (x, weight, bias, other, residual, *(norm or (None, None, 0.0)))
    name = backend or ("cpu" if cpu.is_supported(*args) else "reference")
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; choose from {', '.join(BACKENDS)}")
    return BACKENDS[name](*args)


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
    out = F.conv2d(x, weight, bias, padding=_size(weight)[0] // 2)
    return out if residual is None else residual + out


def _size(weight: Tensor) -> tuple[int, int]:
    """A kernel's height and width. Tracing for ONNX turns sizes into tensors, which this undoes."""
    return int(weight.shape[2]), int(weight.shape[3])


BACKENDS: dict[str, Callable[..., Tensor]] = {
    "reference": _reference,
    "cpu": cpu.register(cpu.convolution, fallback=_reference, channels=lambda x, weight, *_: weight.shape[0]),
}
