"""Images and feature maps that are read region by region, and computed where they are read."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Map", "Region", "around", "local", "target_of"]

Region = tuple[slice, slice]
"""Rows and columns, each with a start and a stop."""


@dataclass(frozen=True)
class Map:
    """An image, or what layers make of it, computed where it is read.

    Attributes:
        size: Height and width.
        read: From rows and columns to (1, C, h, w), or to what an upscaled map has in their place.
    """

    size: tuple[int, int]
    read: Callable[[Region], Tensor]


def local(operator: Callable[..., Tensor], *sources: Map, halo: int = 0, window: int = 1) -> Map:
    """What an operator makes of maps, where a pixel depends on those up to ``halo`` away or in its window."""

    def read(core: Region) -> Tensor:
        seen = around(core, sources[0].size, halo, window)
        return _cropped(operator(*(source.read(seen) for source in sources)), seen, core)

    return Map(sources[0].size, read)


def around(core: Region, size: tuple[int, int], halo: int, window: int = 1) -> Region:
    """A region and its surroundings as far as the image reaches, in whole windows."""
    rows, columns = (_widened(*side, halo, window) for side in zip(core, size, strict=True))
    return rows, columns


def _widened(core: slice, length: int, halo: int, window: int) -> slice:
    start, stop = max(core.start - halo, 0), min(core.stop + halo, length)
    start -= start % window
    stop += -stop % window
    if stop > length:  # the last window is continued by reflection, which may begin in the one before
        start = max(start - window, 0)
    return slice(start, min(stop, length))


def _cropped(x: Tensor, seen: Region, core: Region) -> Tensor:
    """The core of what was made of the region seen, some times as large."""
    scale = x.shape[2] // (seen[0].stop - seen[0].start)
    rows, columns = (
        slice((inner.start - outer.start) * scale, (inner.stop - outer.start) * scale)
        for inner, outer in zip(core, seen, strict=True)
    )
    return x[:, :, rows, columns]


def target_of(core: Region, size: tuple[int, int], upscaled: tuple[int, int]) -> Region:
    """The region of an upscaled image that belongs to one of the image, as the centers of its pixels do.

    Args:
        core: Rows and columns of the image.
        size: Height and width of the image.
        upscaled: The same of the upscaled one.
    """
    rows, columns = (
        slice(*(-((length - 2 * end * result) // (2 * length)) for end in (side.start, side.stop)))
        for side, length, result in zip(core, size, upscaled, strict=True)
    )
    return rows, columns
