"""Images of any size through a network in strips: color, transparency and depth, region by region."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convattn.images.alpha import extremes_around, fill_transparent_map
from convattn.images.lazy_image import Map, Region, local, target_of
from convattn.images.memmap import LARGE, FileArray, check_disk, gather
from convattn.images.pixel_range import from_unit, to_unit
from convattn.inference import strips
from convattn.inference.devices import free_memory
from convattn.layers.execution import pixel_centers
from convattn.models.features import SuperResolutionNetwork

__all__ = ["upscale"]

_SHARE_OF_MEMORY = 0.25  # of what is free: for the feature maps, and again for the region that is computed
_MOST_FOR_MAPS, _MOST_FOR_A_REGION = 2**30, 2**28  # bytes, on a CPU: with more it gets no faster

Progress = Callable[[float], None]
Stream = Iterator[tuple[Region, Tensor]]


def upscale(
    network: SuperResolutionNetwork,
    image: Tensor,
    size: tuple[int, int],
    *,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    memory_divisor: int = 1,
    progress: Progress = lambda part: None,
) -> Tensor:
    """Upscale an image that is too large for the memory of a device, as if it were not.

    Feature maps and result lie in temporary files where there is too little memory for them.

    Args:
        network: The network, on the device.
        image: (channels, H, W), grayscale or RGB, with alpha or without.
        size: Height and width of the result.
        device: Where the network is.
        precision: What it computes in.
        memory_divisor: How many times less memory than usual the device is asked for.
        progress: Called now and then with the part that is done, up to 1.

    Returns:
        (channels, *size) with the same kind of numbers in the same place.

    Raises:
        InputError: The disk is too small.
        OverflowError: Half precision is not enough.
    """
    height, width = image.shape[1:]
    kept = torch.float32 if image.dtype == torch.bfloat16 else image.dtype  # NumPy knows no bfloat16
    run = partial(
        _run,
        network,
        size=size,
        memory=_memory_for_a_region(device) // memory_divisor,
        allocate=_allocator(network, image, math.prod(size) * len(image) * kept.itemsize, device),
    )
    with torch.inference_mode(), torch.autocast(device.type, precision, enabled=precision != torch.float32):
        parts = (
            (target_of(region, (height, width), size), _numbers(channels, kept))
            for region, channels in _channels(image, size, device, run, progress)
        )
        pixels = gather((*size, len(image)), torch.empty(0, dtype=kept).numpy().dtype, parts)
    return torch.from_numpy(pixels).movedim(-1, 0).to(image.device, image.dtype)


def _memory_for_a_region(device: torch.device) -> int:
    share = int(free_memory(device) * _SHARE_OF_MEMORY)
    return min(share, _MOST_FOR_A_REGION) if device.type == "cpu" else share


def _allocator(
    network: SuperResolutionNetwork, image: Tensor, result: int, device: torch.device
) -> Callable[..., strips.Array]:
    """What holds feature maps: memory or, if they are too large for it, files."""
    channels, height, width = image.shape
    maps = strips.bytes_of_feature_maps(network, (height, width))
    room = free_memory(torch.device("cpu")) * _SHARE_OF_MEMORY
    in_memory = maps <= (min(room, _MOST_FOR_MAPS) if device.type == "cpu" else room)
    with_alpha = channels in (2, 4)
    check_disk((0 if in_memory else maps * (1 + with_alpha)) + (result if result >= LARGE else 0))
    return np.empty if in_memory else FileArray


def _channels(
    image: Tensor,
    size: tuple[int, int],
    device: torch.device,
    run: Callable[..., Stream],
    progress: Progress,
) -> Stream:
    """Color, and apart from it alpha where it varies, both in [0, 1]."""
    colors = {2: 1, 4: 3}.get(len(image), len(image))
    color, alpha = (_unit(channels, device) for channels in image.split((colors, len(image) - colors)))
    flat = image[colors:, :1, :1]
    if all(bool((rows == flat).all()) for rows in image[colors:].split(1024, 1)):
        opacity = to_unit(flat[None], device)
        for region, channels in run(color, colors == 1, progress=progress):
            yield region, torch.cat((channels, opacity.expand(-1, -1, *channels.shape[2:])), 1)
        return
    done = [0.0, 0.0]

    def both(stream: int, part: float) -> None:
        done[stream] = part
        progress(sum(done) / 2)

    filled = fill_transparent_map(color, alpha)
    color = local(lambda x: to_unit(from_unit(x, image.dtype)), filled)
    color_stream = run(color, colors == 1, progress=partial(both, 0))
    alpha_stream = _limited(run(alpha, True, progress=partial(both, 1)), alpha, size)
    for (region, channels), (_, opacity) in zip(color_stream, alpha_stream, strict=True):
        yield region, torch.cat((channels, opacity), 1)


def _unit(image: Tensor, device: torch.device) -> Map:
    """(channels, H, W) in [0, 1]."""
    height, width = image.shape[1:]
    return Map((height, width), lambda region: to_unit(image[None, :, region[0], region[1]], device))


def _run(
    network: SuperResolutionNetwork, x: Map, grayscale: bool, *, size: tuple[int, int], **options: Any
) -> Stream:
    """Upscale color; grayscale is shown as three equal channels, which are averaged."""

    def rgb(region: Region) -> Tensor:
        return x.read(region).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

    for region, channels in strips.upscale(network, Map(x.size, rgb), size, **options):
        if torch.is_autocast_enabled(channels.device.type) and not bool(channels.isfinite().all()):
            raise OverflowError("half precision is not enough")
        yield region, channels.float().mean(1, keepdim=True) if grayscale else channels.float()


def _limited(stream: Stream, alpha: Map, size: tuple[int, int]) -> Stream:
    """As :func:`convattn.images.alpha.limit_to_neighbors`."""
    extremes = local(extremes_around, alpha, halo=1)
    for region, opacity in stream:
        rows, columns = (
            pixel_centers(source, output, opacity.device)[target].long().clamp(part.start, part.stop - 1)
            - part.start
            for source, output, target, part in zip(
                alpha.size, size, target_of(region, alpha.size, size), region, strict=True
            )
        )
        lowest, highest = extremes.read(region)[:, :, rows][..., columns].split(1, 1)
        yield region, opacity.clamp(lowest, highest)


def _numbers(unit: Tensor, dtype: torch.dtype) -> np.ndarray:
    """(1, channels, h, w) in [0, 1] to (h, w, channels) of an image."""
    return from_unit(unit, dtype)[0].permute(1, 2, 0).cpu().numpy()
