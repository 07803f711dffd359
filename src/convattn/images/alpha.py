"""Transparency: hidden colors do not leak into visible pixels, and opaque areas stay opaque."""

import torch
import torch.nn.functional as F
from torch import Tensor

from convattn.images.lazy_image import LazyImage, Region, local

__all__ = ["extremes_around", "fill_transparent", "fill_transparent_lazily", "limit_to_neighbors"]

_HALVINGS = 5
_COARSE = 2**_HALVINGS  # side in pixels of the squares whose mean colors are kept for a whole large image


def fill_transparent(color: Tensor, alpha: Tensor) -> Tensor:
    """Return colors in which fully transparent pixels have the colors around them, so that none leak.

    Args:
        color: (N, C, H, W), not multiplied by alpha.
        alpha: (N, 1, H, W) in [0, 1].

    Returns:
        Colors of the same shape; unchanged wherever alpha is not 0.
    """
    return torch.where(alpha > 0, color, _fill(color * alpha, alpha))


def fill_transparent_lazily(color: LazyImage, alpha: LazyImage) -> LazyImage:
    """Return the same as :func:`fill_transparent`, computed region by region.

    Of the whole image only the mean colors of coarse squares are held in memory.

    Args:
        color: (1, C, H, W), not multiplied by alpha.
        alpha: (1, 1, H, W) in [0, 1].
    """
    height, width = alpha.size
    strips = [(slice(top, min(top + _COARSE, height)), slice(0, width)) for top in range(0, height, _COARSE)]
    rows = [_halved(color.read(strip) * alpha.read(strip), alpha.read(strip), _HALVINGS) for strip in strips]
    coarse = _fill(*(torch.cat(strips, 2) for strips in zip(*rows, strict=True)))

    def squares(region: Region) -> Tensor:
        rows, columns = (slice(side.start // _COARSE, -(-side.stop // _COARSE)) for side in region)
        return coarse[:, :, rows, columns]

    def fill(color: Tensor, alpha: Tensor, coarse: Tensor) -> Tensor:
        return torch.where(alpha > 0, color, _fill(color * alpha, alpha, coarse))

    return local(fill, color, alpha, LazyImage(alpha.size, squares), window=_COARSE)


def _fill(weighted: Tensor, weight: Tensor, coarsest: Tensor | None = None) -> Tensor:
    """Return weighted colors over their weight, or those of the smallest square around with any weight.

    Args:
        weighted: Colors times their weight.
        weight: Of the colors.
        coarsest: The colors of squares of some size, where they are known.
    """
    if coarsest is not None and coarsest.shape[2:] == weight.shape[2:]:
        return coarsest
    coarse = torch.zeros_like(weighted)
    if max(weight.shape[2:]) > 1:
        coarse = F.interpolate(_fill(*_halved(weighted, weight), coarsest), scale_factor=2)
        coarse = coarse[:, :, : weight.shape[2], : weight.shape[3]]
    return torch.where(weight > 0, weighted / weight.clamp(min=1e-30), coarse)


def _halved(weighted: Tensor, weight: Tensor, times: int = 1) -> tuple[Tensor, Tensor]:
    for _ in range(times):
        weighted, weight = (F.avg_pool2d(x, 2, ceil_mode=True) for x in (weighted, weight))
    return weighted, weight


def limit_to_neighbors(upscaled: Tensor, alpha: Tensor) -> Tensor:
    """Keep upscaled alpha between the extremes of the 3×3 pixels around each source pixel.

    Opaque areas stay exactly opaque, and transparent ones exactly transparent.

    Args:
        upscaled: (N, 1, H', W').
        alpha: The source, (N, 1, H, W).
    """
    extremes = F.interpolate(extremes_around(alpha), upscaled.shape[2:], mode="nearest-exact")
    return upscaled.clamp(*extremes.split(1, 1))


def extremes_around(alpha: Tensor) -> Tensor:
    """Return the minimum and maximum of the 3×3 pixels around each, (N, 2, H, W), of alpha (N, 1, H, W)."""
    return torch.cat((-F.max_pool2d(-alpha, 3, 1, 1), F.max_pool2d(alpha, 3, 1, 1)), 1)
