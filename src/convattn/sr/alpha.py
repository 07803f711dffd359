"""Transparency: no colour leaks out of what cannot be seen, and no ringing makes solid things porous."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["fill_transparent", "limit_to_neighbours"]


def fill_transparent(colour: Tensor, alpha: Tensor) -> Tensor:
    """Give fully transparent pixels the colours around them, so that what they held leaks nowhere.

    Args:
        colour: (N, C, H, W), not multiplied by alpha.
        alpha: (N, 1, H, W) in [0, 1].

    Returns:
        Colours of the same shape; wherever alpha is not 0 they are those that were given.
    """
    return torch.where(alpha > 0, colour, _fill(colour * alpha, alpha))


def _fill(weighted: Tensor, weight: Tensor) -> Tensor:
    """Weighted colours over their weight, or over that of the smallest square around, of 2, 4, 8 … pixels."""
    coarse = torch.zeros_like(weighted)
    if max(weight.shape[2:]) > 1:
        halves = (F.avg_pool2d(x, 2, ceil_mode=True) for x in (weighted, weight))
        coarse = F.interpolate(_fill(*halves), scale_factor=2)[:, :, : weight.shape[2], : weight.shape[3]]
    return torch.where(weight > 0, weighted / weight.clamp(min=1e-30), coarse)


def limit_to_neighbours(enlarged: Tensor, alpha: Tensor, scale: int) -> Tensor:
    """Keep enlarged alpha between the extremes of the 3×3 pixels around each source pixel.

    What is opaque all around stays exactly opaque, and what is clear exactly clear.

    Args:
        enlarged: (N, 1, scale · H, scale · W).
        alpha: What it was made of, (N, 1, H, W).
        scale: How many times larger it is.
    """
    lowest, highest = -F.max_pool2d(-alpha, 3, 1, 1), F.max_pool2d(alpha, 3, 1, 1)
    return enlarged.clamp(*(F.interpolate(bound, scale_factor=scale) for bound in (lowest, highest)))
