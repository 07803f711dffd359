"""Pixel values of 8 bits, 16 bits or floating point to [0, 1] and back."""

import torch
from torch import Tensor

__all__ = ["DEPTHS", "from_unit", "to_unit"]

DEPTHS = {torch.uint8: 255, torch.uint16: 65535}
"""The pixel value of 1 by dtype; in floating point it is 1 itself."""


def to_unit(pixels: Tensor, device: torch.device | None = None) -> Tensor:
    """Return pixel values of any shape as float32 in [0, 1], on a device."""
    return pixels.to(device or pixels.device).float() / DEPTHS.get(pixels.dtype, 1)


def from_unit(unit: Tensor, dtype: torch.dtype) -> Tensor:
    """Return values in [0, 1], of any shape, as pixel values of a dtype; others are clipped."""
    unit = unit.clamp(0, 1)
    return unit.mul_(DEPTHS[dtype]).round_().to(dtype) if dtype in DEPTHS else unit.to(dtype)
