"""Bicubic resizing as MATLAB's ``imresize`` does it, which is how the field's benchmarks are made."""

import math
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["resize_bicubic"]


def resize_bicubic(x: Tensor, scale: float | None = None, *, size: tuple[int, int] | None = None) -> Tensor:
    """Resize images with MATLAB's ``imresize(x, scale, "bicubic")`` or ``imresize(x, size, "bicubic")``.

    Shrinking is antialiased: the kernel widens with the step. Borders are mirrored, edge included. As in
    MATLAB the data type decides about rounding: ``uint8`` images are rounded after each of the two passes,
    floating-point images never and may leave their range.

    Args:
        x: images (..., H, W), ``uint8`` or floating point.
        scale: what both sides are multiplied with; the new sides are ``ceil(scale * side)``.
        size: the new (height, width) instead.

    Returns:
        Images (..., H', W') of the same data type, on the same device.

    Raises:
        ValueError: unless exactly one of ``scale`` and ``size`` is given, and positive.
    """
    if (scale is None) == (size is None):
        raise ValueError("Give either the scale or the size to resize to.")
    if scale is not None:
        size = (math.ceil(scale * x.shape[-2]), math.ceil(scale * x.shape[-1]))
    assert size is not None
    if min(size) < 1:
        raise ValueError(f"Images cannot be resized to {size[0]}x{size[1]} pixels.")
    passes = [(-2, scale or size[0] / x.shape[-2], size[0]), (-1, scale or size[1] / x.shape[-1], size[1])]
    for dim, factor, length in sorted(passes, key=lambda entry: entry[1]):  # MATLAB: smallest factor first
        x = _resize_side(x, dim, factor, length)
    return x


def _resize_side(x: Tensor, dim: int, factor: float, length: int) -> Tensor:
    """Resize along one dimension: a weighted sum of as many gathered copies as the kernel has taps."""
    if x.dtype == torch.uint8:
        exact = torch.float32 if x.device.type == "mps" else torch.float64
        return (
            _resize_side(x.to(exact), dim, factor, length).add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)
        )
    if x.dtype in (torch.float16, torch.bfloat16):
        return _resize_side(x.float(), dim, factor, length).to(x.dtype)
    sources, weights = _taps(x.shape[dim], length, factor)
    sources, weights = sources.to(x.device), weights.to(x)
    if dim == -2:
        weights = weights.unsqueeze(-1)
    result = x.index_select(dim, sources[0]) * weights[0]
    for source, weight in zip(sources[1:], weights[1:], strict=True):
        result.addcmul_(x.index_select(dim, source), weight)
    return result


@lru_cache(maxsize=64)
def _taps(length: int, new_length: int, factor: float) -> tuple[Tensor, Tensor]:
    """Which source samples make each new sample, and how much of each: two tensors (taps, new_length)."""
    shrink = min(factor, 1.0)
    center = (torch.arange(new_length, dtype=torch.float64) + 0.5) / factor - 0.5
    first = torch.floor(center - 2 / shrink)
    sources = first + torch.arange(math.ceil(4 / shrink) + 2).unsqueeze(1)
    weights = _cubic(shrink * (center - sources))
    weights /= weights.sum(0)
    used = weights.ne(0).any(1)
    sources = sources[used].long() % (2 * length)
    return torch.minimum(sources, 2 * length - 1 - sources), weights[used]


def _cubic(t: Tensor) -> Tensor:
    """Return Keys' cubic convolution kernel with a = -0.5 (IEEE TASSP 1981, eq. 15)."""
    t = t.abs()
    inner = (1.5 * t - 2.5) * t * t + 1
    outer = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return torch.where(t <= 1, inner, torch.where(t <= 2, outer, 0))
