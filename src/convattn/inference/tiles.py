"""Large images in tiles: quick, for every network, with no seams, but not quite exact as strips are.

Two things tie a tile of an ESC network to the rest of its image. Its surroundings: each tile is shown with
context, which is cropped afterwards, and starts at a multiple of the attention window, so that windows lie
where they lie in the whole image. And the averages over the whole image, which the dynamic kernels are
made of: a first pass over some of the tiles takes them, and all tiles use them.

Measured with esc-nano ×2 on 360×400 pixels of Set14's baboon and ppt3, in tiles of 104, which is smaller
than any that memory asks for: at most 0.08 of 255 away from the untiled result, 0.003 in root mean square.
With each tile's own averages it would be 0.54 and 0.020.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convattn.layers import KernelPredictor

__all__ = ["SharedAverages", "Tile", "cut"]


@dataclass(frozen=True)
class Tile:
    """One tile of an image.

    Attributes:
        core: Rows and columns that the tile answers for; the cores of all tiles make up the image.
        seen: Rows and columns that the network is shown: the core and its context.
    """

    core: tuple[slice, slice]
    seen: tuple[slice, slice]

    def put(self, upscaled: Tensor, image: Tensor, scale: int) -> None:
        """Write the core of what was made of the pixels seen into the image, (…, scale · H, scale · W)."""
        source = [
            slice((core.start - seen.start) * scale, (core.stop - seen.start) * scale)
            for core, seen in zip(self.core, self.seen, strict=True)
        ]
        target = [slice(core.start * scale, core.stop * scale) for core in self.core]
        image[..., target[0], target[1]] = upscaled[..., source[0], source[1]]


def cut(height: int, width: int, *, side: int, context: int, step: int = 1) -> list[Tile]:
    """Cut an image into tiles whose cores lie side by side.

    Args:
        height: Rows of the image.
        width: Columns of the image.
        side: Most rows and columns that the network is shown at a time; ``step + 2 · context`` at least.
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
    """The core and what is seen of each tile along one side."""
    core = length if length <= side else max((side - 2 * context) // step, 1) * step
    for start in range(0, length, core):
        stop = min(start + core, length)
        yield slice(start, stop), slice(max(start - context, 0), min(stop + context, length))


class SharedAverages:
    """The averages that a network's dynamic kernels are made of, shared by all tiles of an image.

    Args:
        network: Any network; one without dynamic kernels has no such averages.
    """

    def __init__(self, network: nn.Module) -> None:
        self._predictors = [m for m in network.modules() if isinstance(m, KernelPredictor)]
        self._sums: dict[nn.Module, Tensor] = {}
        self._pixels: dict[nn.Module, int] = {}

    def __bool__(self) -> bool:
        """Whether there is anything to share."""
        return bool(self._predictors)

    def taken(self) -> AbstractContextManager[None]:
        """Meanwhile, whatever the network is shown counts."""
        return self._hooked(self._take)

    def used(self) -> AbstractContextManager[None]:
        """Meanwhile, the averages that were taken stand in for each tile's own, if any were."""
        return self._hooked(self._use) if self._sums else nullcontext()

    @contextmanager
    def _hooked(self, hook: Callable[[nn.Module, Any], Any]) -> Iterator[None]:
        handles = [predictor.register_forward_pre_hook(hook) for predictor in self._predictors]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _take(self, predictor: nn.Module, args: tuple[Tensor]) -> None:
        (features,) = args
        total = features.sum((2, 3), keepdim=True, dtype=torch.float32)
        self._sums[predictor] = self._sums.get(predictor, 0) + total
        self._pixels[predictor] = self._pixels.get(predictor, 0) + features[0, 0].numel()

    def _use(self, predictor: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        average = self._sums[predictor] / self._pixels[predictor]
        return (average.to(args[0].dtype),)  # the average of one pixel is that pixel
