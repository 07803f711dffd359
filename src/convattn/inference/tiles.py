"""Large images in tiles: quick, for every network and without seams, but not exact as strips are.

Two things tie a tile of an ESC network to the rest of its image. Its surroundings: each tile is upscaled with
context, which is cropped afterwards, and starts at a multiple of the attention window, so that windows lie
where they lie in the whole image. And the averages over the whole image that the dynamic kernels are
predicted from: a first pass over some of the tiles estimates them, and all tiles use them.

Measured with esc-nano ×2 on 360×400 pixels of Set14's baboon and ppt3, in tiles of 104 pixels, smaller than
any chosen for lack of memory: at most 0.08 of 255 from the untiled result, 0.003 in root mean square. With
averages of its own for each tile it would be 0.54 and 0.020.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convattn.images.alpha import fill_transparent, limit_to_neighbors
from convattn.images.pixel_range import from_unit, to_unit
from convattn.images.tiling import Tile, cut
from convattn.inference.devices import autocast
from convattn.inference.model import Model
from convattn.layers.execution import WholeImage
from convattn.models.features import SuperResolutionNetwork
from convattn.progress import Progress, ignore, share

__all__ = ["TiledModel", "shared_averages", "with_averages"]

_LEAST_CONTEXT = 32  # pixels
_MOST_AVERAGED = 16  # tiles that the averages are estimated from

Size = tuple[int, int]


@dataclass(frozen=True)
class TiledModel:
    """Upscales images of any kind with a model, at once or in tiles.

    Attributes:
        model: The model.
        device: Where it is.
        precision: What it computes in; where half precision overflows, the result is computed in float32.
    """

    model: Model
    device: torch.device
    precision: torch.dtype

    @property
    def context(self) -> int:
        """Pixels around each tile: at least two windows and 32 pixels."""
        return self.model.window_size * max(2, math.ceil(_LEAST_CONTEXT / self.model.window_size))

    @property
    def smallest_side(self) -> int:
        """Side in pixels of the smallest tiles that are worth their context."""
        return self.model.window_size + 2 * self.context

    def upscale(self, image: Tensor, size: Size, side: int, progress: Progress = ignore) -> Tensor:
        """Upscale images: their color and, where it varies, their transparency.

        Args:
            image: (N, channels, H, W), grayscale or RGB, with alpha or without.
            size: Height and width of the results.
            side: Most rows and columns of a tile. Models of arbitrary scale compute the whole image.
            progress: Called with the fraction that is done.

        Returns:
            (N, channels, *size) of the same dtype on the same device.
        """
        if image.shape[1] in (1, 3):
            return self._channels(image, size, side, progress)
        color, alpha = image[:, :-1], image[:, -1:]
        flat = alpha[:, :, :1, :1]
        if bool((alpha == flat).all()):
            upscaled = self._channels(color, size, side, progress)
            return torch.cat((upscaled, flat.expand(-1, -1, *size)), 1)
        color = from_unit(fill_transparent(to_unit(color), to_unit(alpha)), color.dtype)
        upscaled = self._channels(color, size, side, share(progress, 0, 2))
        opacity = self._channels(alpha, size, side, share(progress, 1, 2), finish=limit_to_neighbors)
        return torch.cat((upscaled, opacity), 1)

    def _channels(
        self,
        image: Tensor,
        size: Size,
        side: int,
        progress: Progress,
        finish: Callable[[Tensor, Tensor], Tensor] = lambda upscaled, source: upscaled,
    ) -> Tensor:
        """Upscale (N, 1 or 3, H, W); ``finish`` takes each upscaled tile and the tile."""

        def unit(rows: slice, columns: slice) -> Tensor:
            return to_unit(image[:, :, rows, columns], self.device)

        upscaled = image.new_empty(*image.shape[:2], *size)
        tiles = self._tiles(image, side)
        with torch.inference_mode():
            averages, steps = self._averages(tiles, unit, progress)
            for number, tile in enumerate(tiles):
                source = unit(*tile.seen)
                result = finish(self._call(source, size, averages), source)
                pixels = from_unit(result, image.dtype)
                if self.model.scale:
                    tile.put(pixels, upscaled, self.model.scale)
                else:
                    upscaled.copy_(pixels)
                progress((steps + number + 1) / (steps + len(tiles)))
        return upscaled

    def _tiles(self, image: Tensor, side: int) -> list[Tile]:
        height, width = image.shape[2:]
        if self.model.scale is None:
            side = max(height, width)
        return cut(height, width, side=side, context=self.context, step=self.model.window_size)

    def _averages(
        self, tiles: list[Tile], unit: Callable[[slice, slice], Tensor], progress: Progress
    ) -> tuple[list[Tensor], int]:
        """The averages that tiles share, if they need any, and the number of tiles that were averaged."""
        network = self.model.by_layers
        if network is None or len(tiles) == 1:
            return [], 0
        averaged = tiles[:: math.ceil(len(tiles) / _MOST_AVERAGED)]
        steps = len(averaged) + len(tiles)

        def parts() -> Iterator[Tensor]:
            for number, tile in enumerate(averaged):
                yield self._rgb(unit(*tile.core))
                progress((number + 1) / steps)

        return shared_averages(network, parts()), len(averaged)

    def _call(self, x: Tensor, size: Size, averages: Sequence[Tensor]) -> Tensor:
        """Upscale (N, 1 or 3, h, w) in [0, 1]; a grayscale image is the mean of three equal channels."""
        rgb, half = self._rgb(x), self.precision != torch.float32
        with autocast(self.device, self.precision):
            upscaled = self._forward(rgb, size, averages)
        if half and not bool(upscaled.isfinite().all()):
            upscaled = self._forward(rgb, size, averages)
        return upscaled.float().mean(1, keepdim=True) if x.shape[1] == 1 else upscaled.float()

    def _rgb(self, x: Tensor) -> Tensor:
        return x.expand(-1, 3, -1, -1).contiguous(memory_format=self.model.memory_format)

    def _forward(self, rgb: Tensor, size: Size, averages: Sequence[Tensor]) -> Tensor:
        if averages and self.model.by_layers:
            return with_averages(self.model.by_layers, rgb, averages)
        return self.model(rgb) if self.model.scale else self.model(rgb, size)


def shared_averages(network: SuperResolutionNetwork, parts: Iterable[Tensor]) -> list[Tensor]:
    """Average the features that a network predicts its dynamic kernels from over parts of an image.

    Args:
        network: The network.
        parts: Tensors (N, 3, h, w) in [0, 1].

    Returns:
        One average (N, C, 1, 1) for each kernel predictor, in order, for :func:`with_averages`.
    """
    totals: list[Tensor] = []
    pixels = 0
    for part in parts:
        run = _RecordedAverages()
        network.execute(part, run=run)
        count = part[0, 0].numel()
        pixels += count
        totals = [
            total + count * average
            for total, average in itertools.zip_longest(totals, run.averages, fillvalue=torch.tensor(0.0))
        ]
    return [total / pixels for total in totals]


def with_averages(network: SuperResolutionNetwork, x: Tensor, averages: Sequence[Tensor]) -> Tensor:
    """Upscale a tile (N, 3, h, w) with averages that :func:`shared_averages` returned for its image."""
    return network.execute(x, run=_GivenAverages(averages))


class _InTiles(WholeImage):
    """Passes itself on to the parts of a network."""

    def enter(self, part: nn.Module, *inputs: Any) -> Tensor:
        """See :class:`convattn.layers.execution.Execution`."""
        return part(*inputs, run=self)


class _RecordedAverages(_InTiles):
    """Keeps the averages of everything that is averaged."""

    def __init__(self) -> None:
        self.averages: list[Tensor] = []

    def average(self, x: Tensor) -> Tensor:
        """The average over the tile, (N, C, 1, 1)."""
        average = x.mean((2, 3), keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
        self.averages.append(average)
        return average


class _GivenAverages(_InTiles):
    """Gives averages in the order in which they were recorded."""

    def __init__(self, averages: Sequence[Tensor]) -> None:
        self._averages = iter(averages)

    def average(self, x: Tensor) -> Tensor:
        """The next of the given averages."""
        return next(self._averages)
