"""Images of any size through a network in strips: color, transparency and bit depth, region by region."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from convattn.images.alpha import extremes_around, fill_transparent_lazily
from convattn.images.lazy_image import LazyImage, Region, local, target_of
from convattn.images.memmap import LARGE, FileArray, check_disk, gather
from convattn.images.pixel_range import from_unit, to_unit
from convattn.inference import strips
from convattn.inference.devices import autocast
from convattn.inference.memory_budget import MemoryBudget
from convattn.layers.execution import Points
from convattn.models.features import SuperResolutionNetwork
from convattn.ops.cpu.allocator import empty
from convattn.progress import Progress, ignore

__all__ = ["upscale"]

Stream = Iterator[tuple[Region, Tensor]]


def upscale(
    network: SuperResolutionNetwork,
    image: Tensor,
    size: tuple[int, int],
    *,
    budget: MemoryBudget,
    precision: torch.dtype = torch.float32,
    progress: Progress = ignore,
) -> Tensor:
    """Upscale an image that is too large for the memory of a device; the result is the same.

    Feature maps and the result are memory-mapped where there is too little memory for them.

    Args:
        network: The network, on the device of the budget.
        image: (channels, H, W), grayscale or RGB, with alpha or without.
        size: Height and width of the result.
        budget: The memory that may be taken.
        precision: What the network computes in.
        progress: Called with the fraction that is done.

    Returns:
        (channels, *size) of the same dtype on the same device.

    Raises:
        InputError: The disk is too small.
        OverflowError: Half precision overflows.
    """
    height, width = image.shape[1:]
    device = budget.device
    kept = torch.float32 if image.dtype == torch.bfloat16 else image.dtype  # NumPy has no bfloat16
    run = partial(
        _run,
        network,
        size=size,
        half=precision != torch.float32,
        memory=budget.region,
        allocate=_allocator(network, image, math.prod(size) * len(image) * kept.itemsize, budget),
    )
    with torch.inference_mode(), autocast(device, precision):
        parts = (
            (target_of(region, (height, width), size), _to_array(channels, kept))
            for region, channels in _channels(image, size, device, run, progress)
        )
        pixels = gather((*size, len(image)), torch.empty(0, dtype=kept).numpy().dtype, parts)
    return torch.from_numpy(pixels).movedim(-1, 0).to(image.device, image.dtype)


def _allocator(
    network: SuperResolutionNetwork, image: Tensor, result: int, budget: MemoryBudget
) -> Callable[..., strips.Array]:
    """What holds feature maps: memory or, if they are too large for it, files."""
    channels, height, width = image.shape
    feature_maps = strips.bytes_of_feature_maps(network, (height, width))
    in_memory = budget.keeps(feature_maps)
    streams = 2 if channels in (2, 4) else 1
    check_disk((0 if in_memory else feature_maps * streams) + (result if result >= LARGE else 0))
    return _in_memory if in_memory else FileArray


def _in_memory(shape: tuple[int, int, int], dtype: npt.DTypeLike) -> np.ndarray:
    """As ``np.empty``, in memory that earlier maps have left: fresh pages take longer than the values."""
    height, width, channels = shape
    numbers = torch.from_numpy(np.empty(0, dtype)).dtype
    return empty((1, channels, height, width), numbers)[0].permute(1, 2, 0).numpy()


def _channels(
    image: Tensor,
    size: tuple[int, int],
    device: torch.device,
    run: Callable[..., Stream],
    progress: Progress,
) -> Stream:
    """Regions of the upscaled image in [0, 1]: color and, where it varies, alpha as a stream of its own."""
    colors = {2: 1, 4: 3}.get(len(image), len(image))
    color, alpha = (_unit(channels, device) for channels in image.split((colors, len(image) - colors)))
    flat = image[colors:, :1, :1]
    if all(bool((rows == flat).all()) for rows in image[colors:].split(1024, 1)):
        opacity = to_unit(flat[None], device)
        for region, channels in run(color, colors == 1, progress=progress):
            yield region, torch.cat((channels, opacity.expand(-1, -1, *channels.shape[2:])), 1)
        return
    done = [0.0, 0.0]

    def both(stream: int, fraction: float) -> None:
        done[stream] = fraction
        progress(sum(done) / 2)

    filled = fill_transparent_lazily(color, alpha)
    color = local(lambda x: to_unit(from_unit(x, image.dtype)), filled)
    color_stream = run(color, colors == 1, progress=partial(both, 0))
    alpha_stream = _limited(run(alpha, True, progress=partial(both, 1)), alpha, size)
    for (region, channels), (_, opacity) in zip(color_stream, alpha_stream, strict=True):
        yield region, torch.cat((channels, opacity), 1)


def _unit(image: Tensor, device: torch.device) -> LazyImage:
    """(channels, H, W) in [0, 1]."""
    height, width = image.shape[1:]
    return LazyImage((height, width), lambda region: to_unit(image[None, :, region[0], region[1]], device))


def _run(
    network: SuperResolutionNetwork,
    x: LazyImage,
    grayscale: bool,
    *,
    size: tuple[int, int],
    half: bool,
    **options: Any,
) -> Stream:
    """Upscale color; a grayscale image is the mean of three equal channels. Half precision may overflow."""

    def rgb(region: Region) -> Tensor:
        return x.read(region).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

    for region, channels in strips.upscale(network, LazyImage(x.size, rgb), size, **options):
        if half and not bool(channels.isfinite().all()):
            raise OverflowError("half precision is not enough")
        yield region, channels.float().mean(1, keepdim=True) if grayscale else channels.float()


def _limited(stream: Stream, alpha: LazyImage, size: tuple[int, int]) -> Stream:
    """As :func:`convattn.images.alpha.limit_to_neighbors`."""
    extremes = local(extremes_around, alpha, halo=1)
    for region, opacity in stream:
        points = Points.of(alpha.size, size, opacity.device)
        points = points.within(region, target_of(region, alpha.size, size))
        rows, columns = (
            positions.long().clamp(0, side.stop - side.start - 1)
            for positions, side in zip(points[:2], region, strict=True)
        )
        lowest, highest = extremes.read(region)[:, :, rows][..., columns].split(1, 1)
        yield region, opacity.clamp(lowest, highest)


def _to_array(unit: Tensor, dtype: torch.dtype) -> np.ndarray:
    """(1, channels, h, w) in [0, 1] to pixel values (h, w, channels)."""
    return from_unit(unit, dtype)[0].permute(1, 2, 0).cpu().numpy()
