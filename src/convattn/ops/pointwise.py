"""Pointwise convolution of maps that need not be joined first."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from . import native

__all__ = ["BACKENDS", "pointwise"]


def pointwise(
    x: Tensor, weight: Tensor, bias: Tensor, *, other: Tensor | None = None, backend: str | None = None
) -> Tensor:
    """Convolve 1×1 over the channels of one or two maps.

    Args:
        x: (N, C, H, W).
        weight: (out, C + C', 1, 1).
        bias: (out,).
        other: A second map, (N, C', H, W), whose channels follow those of ``x``.
        backend: A name in :data:`BACKENDS`; chosen by the function where it is None.

    Returns:
        (N, out, H, W).

    Raises:
        ValueError: The backend is unknown.
    """
    other = x[:, :0] if other is None else other
    name = backend or ("native" if native.takes(x, other, weight, bias) else "reference")
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; choose from {', '.join(BACKENDS)}")
    return BACKENDS[name](x, other, weight, bias)


def _reference(x: Tensor, other: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The definition."""
    return F.conv2d(torch.cat((x, other), 1) if other.shape[1] else x, weight, bias)


BACKENDS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "reference": _reference,
    "native": native.register(native.pointwise, otherwise=_reference, channels=lambda *args: len(args[-1])),
}
