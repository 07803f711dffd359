"""Cutting images into overlapping tiles and putting upscaled tiles together."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Tile", "cut"]


@dataclass(frozen=True)
class Tile:
    """One tile of an image.

    Attributes:
        core: Rows and columns of the image that the tile contributes; all cores together are the image.
        seen: Rows and columns that the network receives: the core and its context.
    """

    core: tuple[slice, slice]
    seen: tuple[slice, slice]

    def put(self, upscaled: Tensor, image: Tensor, scale: int) -> None:
        """Write the core of the upscaled tile into the upscaled image (…, scale · H, scale · W)."""
        source = [
            slice((core.start - seen.start) * scale, (core.stop - seen.start) * scale)
            for core, seen in zip(self.core, self.seen, strict=True)
        ]
        target = [slice(core.start * scale, core.stop * scale) for core in self.core]
        image[..., target[0], target[1]] = upscaled[..., source[0], source[1]]


def cut(height: int, width: int, *, side: int, context: int, step: int = 1) -> list[Tile]:
    """Cut an image into tiles whose cores are adjacent.

    Args:
        height: Rows of the image.
        width: Columns of the image.
        side: Most rows and columns of a tile; at least ``step + 2 · context``.
        context: Pixels around each core, as far as the image reaches; a multiple of ``step``.
        step: Every tile starts at a multiple of this.

    Returns:
        The tiles, row by row.
    """
    rows, columns = (list(_cut_side(length, side, context, step)) for length in (height, width))
    return [
        Tile((row_core, column_core), (row_seen, column_seen))
        for (row_core, row_seen), (column_core, column_seen) in itertools.product(rows, columns)
    ]


def _cut_side(length: int, side: int, context: int, step: int) -> Iterator[tuple[slice, slice]]:
    """The core of each tile along one side, and the core with its context."""
    core = length if length <= side else max((side - 2 * context) // step, 1) * step
    for start in range(0, length, core):
        stop = min(start + core, length)
        yield slice(start, stop), slice(max(start - context, 0), min(stop + context, length))
