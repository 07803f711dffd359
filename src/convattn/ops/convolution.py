"""3×3 convolution with what stands before and after it, so that maps are read and written once."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from . import native
from .norm import Norm, normalise

__all__ = ["BACKENDS", "convolution"]


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    residual: Tensor | None = None,
    norm: Norm | None = None,
    backend: str | None = None,
) -> Tensor:
    """Convolve 3×3, zero-padded: ``weight * norm(x) + bias + residual``.

    Args:
        x: (N, C, H, W).
        weight: (out, C, 3, 3).
        bias: (out,).
        residual: Added to the result, (N, out, H, W).
        norm: Normalises ``x`` first.
        backend: A name in :data:`BACKENDS`; chosen by the function where it is None.

    Returns:
        (N, out, H, W).

    Raises:
        ValueError: The backend is unknown.
    """
    args = (x, weight, bias, residual, *(norm or (None, None, 0.0)))
    name = backend or ("native" if native.takes(*args) else "reference")
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; choose from {', '.join(BACKENDS)}")
    return BACKENDS[name](*args)


def _reference(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, *norm: Any) -> Tensor:
    """The definition."""
    out = F.conv2d(normalise(x, *norm), weight, bias, padding=1)
    return out if residual is None else residual + out


BACKENDS: dict[str, Callable[..., Tensor]] = {
    "reference": _reference,
    "native": native.register(
        native.convolution, otherwise=_reference, channels=lambda x, weight, *_: weight.shape[0]
    ),
}
