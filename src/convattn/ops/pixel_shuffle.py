"""Channels to pixels, in memory that is used again."""

import torch
import torch.nn.functional as F
from torch import Tensor

from convattn.ops import cpu

__all__ = ["pixel_shuffle"]


def pixel_shuffle(x: Tensor, scale: int, skip: Tensor | None = None) -> Tensor:
    """Turn channels into pixels, as :func:`torch.nn.functional.pixel_shuffle`, and add an upscaled image.

    Args:
        x: (N, C · scale², H, W).
        scale: How many times larger the result is.
        skip: (N, C, H, W); each pixel is added to all that come from its place.

    Returns:
        (N, C, scale · H, scale · W).
    """
    if not torch.compiler.is_compiling() and cpu.is_supported_for_inference(x):
        return cpu.pixel_shuffle(x, scale, skip)
    out = F.pixel_shuffle(x, scale)
    # In place, since these are the largest feature maps of all.
    return out if skip is None else out.add_(F.interpolate(skip, scale_factor=scale))
