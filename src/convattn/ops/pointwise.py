"""Pointwise convolution with what stands before and after it, so that maps are read and written once."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import native
from .norm import Norm, normalise

__all__ = ["BACKENDS", "pointwise"]


def pointwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    other: Tensor | None = None,
    residual: Tensor | None = None,
    norm: Norm | None = None,
    backend: str | None = None,
) -> Tensor:
    """Convolve 1×1 over the channels of one or two maps: ``weight · [norm(x), other] + bias + residual``.

    Args:
        x: (N, C, H, W).
        weight: (out, C + C', 1, 1).
        bias: (out,).
        other: A second map, (N, C', H, W), whose channels follow those of ``x``.
        residual: Added to the result, (N, out, H, W).
        norm: Normalises ``x`` first.
        backend: A name in :data:`BACKENDS`; chosen by the function where it is None.

    Returns:
        (N, out, H, W).

    Raises:
        ValueError: The backend is unknown.
    """
    args = (x, weight, bias, other, residual, *(norm or (None, None, 0.0)))
    name = backend or ("native" if native.takes(*args) else "reference")
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
    x = normalise(x, *norm)
    out = F.conv2d(x if other is None else torch.cat((x, other), 1), weight, bias)
    return out if residual is None else residual + out


BACKENDS: dict[str, Callable[..., Tensor]] = {
    "reference": _reference,
    "native": native.register(
        native.pointwise, otherwise=_reference, channels=lambda x, weight, *_: weight.shape[0]
    ),
}
