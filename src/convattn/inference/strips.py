"""Whole images at bounded memory: a network layer by layer, each over strips of the image.

Tiles cannot give what the whole image gives, because the dynamic kernel of every convolutional attention
comes from an average over the whole image. But between two of these averages a network is local. So the
image passes from average to average strip by strip (region by region, where strips are too wide for memory),
and the feature maps in between are kept in memory or in files. Each region is read with the surroundings that
its layers state, so zero padding and reflection only occur at the true border: the result is that of the
whole image, up to float rounding.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from convattn.images.lazy_image import LazyImage, Region, around, local, target_of
from convattn.layers.execution import Points
from convattn.models.features import SuperResolutionNetwork
from convattn.progress import Progress, ignore

__all__ = ["Array", "bytes_of_feature_maps", "upscale"]

_MAPS_ALIVE = 4  # memory of computing a region, in feature maps as wide as the widest layer


class Array(Protocol):
    """Holds a feature map (H, W, C), of which regions are read and written."""

    def __getitem__(self, region: Region, /) -> np.ndarray: ...

    def __setitem__(self, region: Region, values: np.ndarray, /) -> None: ...


def bytes_of_feature_maps(network: SuperResolutionNetwork, size: tuple[int, int]) -> int:
    """Return how many bytes :func:`upscale` stores at any one time for an image of some height and width.

    These are four feature maps: two that are read, one that is written, and the block's shortcut.
    """
    return 4 * 4 * network.features.dim * math.prod(size)


def upscale(
    network: SuperResolutionNetwork,
    image: LazyImage,
    size: tuple[int, int],
    *,
    memory: int,
    allocate: Callable[[tuple[int, int, int], Any], Array] = np.empty,
    progress: Progress = ignore,
) -> Iterator[tuple[Region, Tensor]]:
    """Upscale an image as the network does when it receives the whole.

    Args:
        network: The network.
        image: (1, 3, H, W) in [0, 1], on the device and of the dtype of the network.
        size: Height and width of the result.
        memory: About how many bytes the computation of a region may take; a window at least is computed.
        allocate: Makes the array of a feature map, from its shape (H, W, C) and a NumPy dtype.
        progress: Called with the fraction that is done.

    Yields:
        Regions of the image, strip by strip, and their upscaled pixels (1, 3, h, w), not clamped, which
        belong where :func:`convattn.images.lazy_image.target_of` says.
    """
    body, weight = network.features, network.features.shallow.weight
    values = memory // (4 * _MAPS_ALIVE)
    widest = body.widest
    strips = _cut(image.size, values // widest, network.window_size)
    result_width = math.ceil(network.widest_map(math.prod(size) / math.prod(image.size)))
    last = list(itertools.chain(*_cut(image.size, values // max(widest, result_width), network.window_size)))
    dtype = np.float64 if weight.dtype == torch.float64 else np.float32
    arguments = () if network.scale else (size,)
    passes = _PassCounter()
    network.execute(None, *arguments, run=passes)
    total, done = passes.count * sum(map(len, strips)) + len(last), itertools.count(1)

    def tick() -> None:
        progress(next(done) / total)

    execution = _InStrips(strips, lambda: allocate((*image.size, body.dim), dtype), weight, tick)
    result: LazyImage = network.execute(image, *arguments, run=execution)
    for region in last:
        yield region, result.read(region)
        tick()


def _cut(size: tuple[int, int], pixels: int, window: int) -> list[list[Region]]:
    """Strips from the top, each in one region or, if it would be much wider than high, in several.

    Args:
        size: Height and width of the image.
        pixels: How many a region should have; it has at least a window.
        window: Regions begin at multiples of this.
    """
    height, width = size
    side = math.isqrt(pixels)
    columns = width if width <= 2 * side else max(side // window, 1) * window
    rows = max(pixels // columns // window, 1) * window
    return [
        [(_part(top, rows, height), _part(left, columns, width)) for left in range(0, width, columns)]
        for top in range(0, height, rows)
    ]


def _part(start: int, length: int, whole: int) -> slice:
    return slice(start, min(start + length, whole))


@dataclass(frozen=True)
class _InStrips:
    """Applies layers to lazy feature maps (see :class:`convattn.layers.execution.Execution`).

    Attributes:
        strips: The regions of the image, strip by strip.
        allocate: Makes the array of a feature map.
        weight: A parameter of the network, whose device and dtype feature maps have.
        tick: Called after each region.
    """

    strips: list[list[Region]]
    allocate: Callable[[], Array]
    weight: Tensor
    tick: Callable[[], None]
    overwrites = False  # regions of a stored map are views of it

    def __call__(self, layer: Callable[..., Tensor], *inputs: Any, **options: Any) -> LazyImage:
        """A feature map whose regions are computed when read, with the halo that the layer states."""
        names = [*range(len(inputs)), *options]
        arguments = dict(zip(names, (*inputs, *options.values()), strict=True))
        maps = {name: value for name, value in arguments.items() if isinstance(value, LazyImage)}
        read_once = list(dict.fromkeys(maps.values()))  # a layer may take a map twice, as its residual too

        def apply(*regions: Tensor) -> Tensor:
            region_of = dict(zip(read_once, regions, strict=True))
            values = arguments | {name: region_of[value] for name, value in maps.items()}
            return layer(*(values[name] for name in range(len(inputs))), **{n: values[n] for n in options})

        window = getattr(layer, "window_size", 1)
        if not hasattr(layer, "halo_of"):
            return local(apply, *read_once, halo=layer.halo, window=window)  # type: ignore[attr-defined]

        def read(region: Region) -> Tensor:
            halo = layer.halo_of(*(x.read(region) for x in read_once))
            return local(apply, *read_once, halo=halo, window=window).read(region)

        return LazyImage(inputs[0].size, read)

    def enter(self, part: nn.Module, *inputs: Any) -> LazyImage:
        """Evaluate a part without its hooks, which expect tensors."""
        return part.forward(*inputs, run=self)

    def store(self, x: LazyImage) -> LazyImage:
        """Compute a feature map once."""
        array = self.allocate()
        for region in self._regions():
            array[region] = _to_array(x.read(region).to(self.weight.dtype))
            self.tick()
        return LazyImage(x.size, lambda region: _to_tensor(array[region]).to(self.weight.device))

    def average(self, x: LazyImage) -> Tensor:
        """The average over the image, (1, C, 1, 1) in float64."""
        total = torch.zeros((), dtype=torch.float64)
        for region in self._regions():
            rows = x.read(region).movedim(1, -1).sum(2)  # quicker than with the channels in front
            total = total + rows.cpu().double().sum(1)
            self.tick()
        return (total[..., None, None] / math.prod(x.size)).to(self.weight.device)

    def sample(self, layer: Callable[..., Tensor], *inputs: LazyImage, size: tuple[int, int]) -> LazyImage:
        """An upscaled map, each region of which is computed in coordinates of its own."""
        source = inputs[0].size
        points = Points.of(source, size, self.weight.device)

        def read(region: Region) -> Tensor:
            seen = around(region, source, layer.halo)  # type: ignore[attr-defined]
            return layer(
                *(x.read(seen) for x in inputs), points.within(seen, target_of(region, source, size))
            )

        return LazyImage(source, read)

    def _regions(self) -> Iterator[Region]:
        return itertools.chain(*self.strips)


def _to_tensor(array: np.ndarray) -> Tensor:
    """(H, W, C) to (1, C, H, W)."""
    return torch.from_numpy(array).permute(2, 0, 1)[None]


def _to_array(x: Tensor) -> np.ndarray:
    """(1, C, H, W) to (H, W, C)."""
    return x[0].permute(1, 2, 0).cpu().numpy()


class _PassCounter:
    """Counts how often a network passes over the image, without computing anything."""

    overwrites = False

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, layer: Callable[..., Tensor], *inputs: Any, **options: Any) -> None:
        """Nothing."""

    def enter(self, part: nn.Module, *inputs: Any) -> None:
        """Count the passes of a part."""
        part.forward(*inputs, run=self)

    def store(self, x: Any) -> None:
        """Count a pass."""
        self.count += 1

    average = store

    def sample(self, layer: Callable[..., Tensor], *inputs: Any, size: tuple[int, int]) -> None:
        """Nothing."""
