"""Lazy images and feature maps: they are read region by region, and computed when they are read."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["LazyImage", "Region", "around", "local", "target_of"]

Region = tuple[slice, slice]
"""Rows and columns, each with a start and a stop."""


@dataclass(frozen=True)
class LazyImage:
    """An image or feature map that is computed when it is read.

    Attributes:
        size: Height and width.
        read: Returns the pixels (1, C, h, w) of a region, or those that an upscaled image has in its place.
    """

    size: tuple[int, int]
    read: Callable[[Region], Tensor]


def local(operator: Callable[..., Tensor], *sources: LazyImage, halo: int = 0, window: int = 1) -> LazyImage:
    """Apply an operator whose result depends on pixels up to ``halo`` away, or in the same window."""

    def read(core: Region) -> Tensor:
        seen = around(core, sources[0].size, halo, window)
        return _cropped(operator(*(source.read(seen) for source in sources)), seen, core)

    return LazyImage(sources[0].size, read)


def around(core: Region, size: tuple[int, int], halo: int, window: int = 1) -> Region:
    """Return a region with its surroundings, within the image and in whole windows."""
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
    """The core of a result computed for the region ``seen``, which may be upscaled."""
    scale = x.shape[2] // (seen[0].stop - seen[0].start)
    rows, columns = (
        slice((inner.start - outer.start) * scale, (inner.stop - outer.start) * scale)
        for inner, outer in zip(core, seen, strict=True)
    )
    return x[:, :, rows, columns]


def target_of(core: Region, size: tuple[int, int], upscaled: tuple[int, int]) -> Region:
    """Return the region of an upscaled image whose pixel centers lie in a region of the image.

    Args:
        core: Rows and columns of the image.
        size: Height and width of the image.
        upscaled: Height and width of the upscaled image.
    """
    rows, columns = (
        slice(*(-((length - 2 * end * result) // (2 * length)) for end in (side.start, side.stop)))
        for side, length, result in zip(core, size, upscaled, strict=True)
    )
    return rows, columns
