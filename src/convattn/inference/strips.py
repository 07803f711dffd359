"""Whole images at bounded memory: a network layer by layer, each over strips.

Tiles cannot give what the whole image gives, because the dynamic kernel of every convolutional attention
comes from an average over the whole image. But between two of these averages a network is local. So the
image goes from average to average strip by strip (piece by piece, where strips are too wide for memory),
and the maps in between lie in memory or in files. What a strip needs of its surroundings is read or computed
with it, and zeros and reflections are met at the true border only: the result is that of the whole image to
float rounding.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from convattn.images.lazy_image import Map, Region, around, local, target_of
from convattn.layers import Block, ConvAttentionLayer, KernelPredictor
from convattn.layers.plain import convolve
from convattn.models.lte import pixel_centers
from convattn.models.networks import ESC, ESCLTE, ESCReal, Features
from convattn.models.upsamplers import DySample, NearestConvUpsampler

__all__ = ["Array", "bytes_of_maps", "is_supported", "upscale"]

Network: TypeAlias = ESC | ESCReal | ESCLTE

_MAPS_ALIVE = 4  # what computing a region takes, in maps as wide as the widest of its layers


class Array(Protocol):
    """Holds a map: (H, W, C) numbers of which regions are read and written."""

    def __getitem__(self, region: Region, /) -> np.ndarray: ...

    def __setitem__(self, region: Region, values: np.ndarray, /) -> None: ...


def is_supported(network: nn.Module) -> bool:
    """Whether a network is one that :func:`upscale` can compute."""
    return isinstance(network, (ESC, ESCReal, ESCLTE))


def bytes_of_maps(network: Network, size: tuple[int, int]) -> int:
    """How many bytes :func:`upscale` allocates at any one time for an image of some height and width.

    These are three maps: what a pass reads, what it writes, and the shortcut around the block.
    """
    return 3 * 4 * network.features.dim * math.prod(size)


def upscale(
    network: Network,
    image: Map,
    size: tuple[int, int],
    *,
    memory: int,
    allocate: Callable[[tuple[int, int, int], Any], Array] = np.empty,
    progress: Callable[[float], None] = lambda part: None,
) -> Iterator[tuple[Region, Tensor]]:
    """Upscale an image as the network does when it is shown the whole.

    Args:
        network: One that :func:`is_supported` accepts.
        image: (1, 3, H, W) in [0, 1], on the device and of the dtype of the network.
        size: Height and width of the result.
        memory: About how many bytes the computation of a region may take, if they suffice for a window.
        allocate: Makes what holds a map, of a shape (H, W, C) and a NumPy dtype.
        progress: Called now and then with the part that is done, up to 1.

    Yields:
        Regions of the image, strip by strip, and their upscaled images (1, 3, h, w), not clamped, which
        belong where :func:`convattn.images.lazy_image.target_of` says.
    """
    body, weight = network.features, network.features.shallow.weight
    numbers = memory // (4 * _MAPS_ALIVE)  # of a map at its widest
    strips = _cut(image.size, numbers // _widest(body), body.window_size)
    width = max(_widest(body), _width_of_result(network, math.prod(size) / math.prod(image.size)))
    last = list(itertools.chain(*_cut(image.size, numbers // width, body.window_size)))
    stores = sum(len(block.layers) + 1 for block in body.blocks)  # type: ignore
    total, done = stores * sum(map(len, strips)) + len(last), itertools.count(1)

    def tick() -> None:
        progress(next(done) / total)

    dtype = np.float64 if weight.dtype == torch.float64 else np.float32
    passes = _Passes(strips, lambda: allocate((*image.size, body.dim), dtype), weight, tick)
    result = _result(network, image, size, passes)
    for region in last:
        yield region, result.read(region)
        tick()


def _cut(size: tuple[int, int], pixels: int, window: int) -> list[list[Region]]:
    """Strips from above, each in one region or, if it would be much wider than high, in several.

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


def _widest(module: nn.Module) -> int:
    """Channels of the widest layer."""
    return max(layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d))


def _width_of_result(network: Network, pixels: float) -> int:
    """Channels at the end of the network a pixel of the image, each of which becomes ``pixels``."""
    texture = 2 * _widest(network.estimator) if isinstance(network, ESCLTE) else 0
    channels = network.features.dim if isinstance(network, ESCReal) else 3
    return max(texture, math.ceil(channels * pixels))


@dataclass(frozen=True)
class _Passes:
    """How an image is gone over again and again: strip by strip, each in regions."""

    strips: list[list[Region]]
    allocate: Callable[[], Array]
    weight: Tensor  # of the network, which tells device and dtype
    done: Callable[[], None]

    def store(self, x: Map, averaged: Callable[[Map], Map] | None = None) -> tuple[Map, Tensor]:
        """Compute a map once, to be read as often as wanted, and the average of what is made of it.

        Args:
            x: The map.
            averaged: From the stored map to what is averaged, which depends on nothing further than a strip.

        Returns:
            The stored map, and the average, (1, C, 1, 1) in float64.
        """
        array = self.allocate()
        stored = Map(x.size, lambda region: _tensor(array[region]).to(self.weight.device))
        derived = averaged(stored) if averaged else stored
        total = torch.zeros((), dtype=torch.float64)
        # Averaged one strip behind: there is all that it depends on, and it is still at hand.
        for strip, before in zip([*self.strips, []], [[], *self.strips], strict=True):
            for region in strip:
                array[region] = _numbers(x.read(region).to(self.weight.dtype))
                self.done()
            for region in before if averaged else []:
                total = total + derived.read(region).sum(3).cpu().double().sum(2)
        return stored, total[..., None, None] / math.prod(x.size)


def _tensor(numbers: np.ndarray) -> Tensor:
    """(H, W, C) to (1, C, H, W)."""
    return torch.from_numpy(numbers).permute(2, 0, 1)[None]


def _numbers(x: Tensor) -> np.ndarray:
    """(1, C, H, W) to (H, W, C)."""
    return x[0].permute(1, 2, 0).cpu().numpy()


def _result(network: Network, image: Map, size: tuple[int, int], passes: _Passes) -> Map:
    """As the network's ``forward``."""
    if isinstance(network, ESCLTE):
        image = local(lambda x: 2 * x - 1, image)
        return _queried(network, _features(network.features, image, passes), image, size)
    features = _features(network.features, image, passes)
    if isinstance(network, ESC):
        return local(network.reconstruct, features, image, halo=2)  # the halo of bicubic interpolation
    features = local(lambda x, image: x + network.image_skip(image), features, image, halo=3)
    if isinstance(network.upsampler, NearestConvUpsampler):
        # Every convolution comes after a doubling at least, and sees half as far.
        return local(network.upsampler, features, halo=math.ceil(_halo(network.upsampler) / 2))
    return _sampled(network.upsampler, features)


def _features(network: Features, image: Map, passes: _Passes) -> Map:
    """As ``Features.forward``."""
    shallow = x = local(lambda x: convolve(network.shallow, x), image, halo=_halo(network.shallow))
    large_kernel = network.large_kernel()
    for block in network.blocks:
        x = _block(block, x, large_kernel, network.window_size, passes)  # type: ignore[arg-type]
    halo = _halo(network.deep)
    return local(
        lambda shallow, x: convolve(network.deep, x, norm=network.norm, residual=shallow),
        shallow,
        x,
        halo=halo,
    )


def _block(block: Block, skip: Map, large_kernel: Any, window: int, passes: _Passes) -> Map:
    """As ``Block.forward``."""
    x = local(lambda x: block.ffn(x, norm=block.norm_ffn), skip, halo=_halo(block.ffn))
    x = local(lambda x: block.attention(x, norm=block.norm_attention, residual=x), x, window=window)
    for layer in block.layers:
        x = _layer(layer, x, large_kernel, passes)  # type: ignore[arg-type]
    halo = _halo(block.conv_out)
    x = local(
        lambda skip, x: convolve(block.conv_out, x, norm=block.norm_out, residual=skip), skip, x, halo=halo
    )
    return passes.store(x)[0]


def _layer(layer: ConvAttentionLayer, x: Map, large_kernel: Any, passes: _Passes) -> Map:
    """As ``ConvAttentionLayer.forward``, whose kernel predictor is told the average of the whole map."""
    kernel = large_kernel[-1] if isinstance(large_kernel, tuple) else large_kernel
    halo = _halo(layer.ffn)
    x, average = passes.store(x, lambda x: local(lambda x: layer.ffn(x, norm=layer.norm), x, halo=halo))

    def attend(x: Tensor) -> Tensor:
        with _told(layer.attention.predictor, average):
            return layer(x, large_kernel)

    return local(attend, x, halo=halo + kernel.shape[-1] // 2)


@contextmanager
def _told(predictor: KernelPredictor, average: Tensor) -> Iterator[None]:
    """Meanwhile, the predictor is shown a map of one pixel, the average, in place of what it is given."""

    def show(predictor: nn.Module, args: tuple[Tensor]) -> Tensor:
        (x,) = args
        return average[:, : x.shape[1]].to(x.dtype).to(x.device)

    handle = predictor.register_forward_pre_hook(show)
    try:
        yield
    finally:
        handle.remove()


def _sampled(upsampler: DySample, x: Map) -> Map:
    """DySample may read anywhere; how far away it does is seen first."""

    def read(region: Region) -> Tensor:
        halo = math.ceil(upsampler.places(x.read(region)).abs().max()) + 1
        return local(upsampler, x, halo=halo).read(region)

    return Map(x.size, read)


def _queried(network: ESCLTE, features: Map, image: Map, size: tuple[int, int]) -> Map:
    """As ``ESCLTE.forward``, each region in coordinates of its own."""
    cell = torch.tensor([[source / output for source, output in zip(image.size, size, strict=True)]])

    def read(region: Region) -> Tensor:
        seen = around(region, image.size, 2)  # a pixel for the neighbors and one for the convolution
        texture = network.estimator.estimate(features.read(seen), x := image.read(seen))
        rows, columns = (
            pixel_centers(source, output, x.device)[target] - part.start
            for source, output, target, part in zip(
                image.size, size, target_of(region, image.size, size), seen, strict=True
            )
        )
        return network.render(texture, rows, columns, cell.to(x.device))

    return Map(image.size, read)


def _halo(*modules: nn.Module) -> int:
    """How far convolutions one after the other see."""
    parts = (part for module in modules for part in module.modules())
    return sum(int(part.padding[0]) for part in parts if isinstance(part, nn.Conv2d))
