"""Pictures of any size through a network in strips: colour, transparency and depth, region by region."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import strips
from .alpha import extremes_around, fill_transparent_map
from .depth import from_unit, to_unit
from .devices import free_memory
from .lte import pixel_centres
from .maps import Map, Region, local, target_of
from .storage import LARGE, FileArray, check_disk, gather

__all__ = ["enlarge"]

_SHARE_OF_MEMORY = 0.25  # of what is free: for the feature maps, and again for the region that is computed
_MOST_FOR_MAPS, _MOST_FOR_A_REGION = 2**30, 2**28  # bytes, on a CPU: with more it gets no faster

Progress = Callable[[float], None]
Stream = Iterator[tuple[Region, Tensor]]


def enlarge(
    network: strips.Network,
    picture: Tensor,
    size: tuple[int, int],
    *,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    thrift: int = 1,
    progress: Progress = lambda part: None,
) -> Tensor:
    """Enlarge a picture that is too large for the memory of a device, as if it were not.

    Feature maps and result lie in temporary files where there is too little memory for them.

    Args:
        network: One that :func:`convattn.sr.strips.takes` accepts, on the device.
        picture: (bands, H, W), grey or RGB, with alpha or without.
        size: Height and width of the result.
        device: Where the network is.
        precision: What it computes in.
        thrift: How many times less memory than usual the device is asked for.
        progress: Called now and then with the part that is done, up to 1.

    Returns:
        (bands, *size) with the same kind of numbers in the same place.

    Raises:
        InputError: The disk is too small.
        OverflowError: Half precision is not enough.
    """
    height, width = picture.shape[1:]
    kept = torch.float32 if picture.dtype == torch.bfloat16 else picture.dtype  # NumPy knows no bfloat16
    run = partial(
        _run,
        network,
        size=size,
        memory=_memory_for_a_region(device) // thrift,
        allocate=_allocator(network, picture, math.prod(size) * len(picture) * kept.itemsize, device),
    )
    with torch.inference_mode(), torch.autocast(device.type, precision, enabled=precision != torch.float32):
        parts = (
            (target_of(region, (height, width), size), _numbers(bands, kept))
            for region, bands in _bands(picture, size, device, run, progress)
        )
        pixels = gather((*size, len(picture)), torch.empty(0, dtype=kept).numpy().dtype, parts)
    return torch.from_numpy(pixels).movedim(-1, 0).to(picture.device, picture.dtype)


def _memory_for_a_region(device: torch.device) -> int:
    share = int(free_memory(device) * _SHARE_OF_MEMORY)
    return min(share, _MOST_FOR_A_REGION) if device.type == "cpu" else share


def _allocator(
    network: strips.Network, picture: Tensor, result: int, device: torch.device
) -> Callable[..., strips.Array]:
    """What holds feature maps: memory or, if they are too large for it, files."""
    bands, height, width = picture.shape
    maps = strips.bytes_of_maps(network, (height, width))
    room = free_memory(torch.device("cpu")) * _SHARE_OF_MEMORY
    in_memory = maps <= (min(room, _MOST_FOR_MAPS) if device.type == "cpu" else room)
    with_alpha = bands in (2, 4)
    check_disk((0 if in_memory else maps * (1 + with_alpha)) + (result if result >= LARGE else 0))
    return np.empty if in_memory else FileArray


def _bands(
    picture: Tensor,
    size: tuple[int, int],
    device: torch.device,
    run: Callable[..., Stream],
    progress: Progress,
) -> Stream:
    """Colour, and apart from it alpha where it varies, both in [0, 1]."""
    colours = {2: 1, 4: 3}.get(len(picture), len(picture))
    colour, alpha = (_unit(bands, device) for bands in picture.split((colours, len(picture) - colours)))
    flat = picture[colours:, :1, :1]
    if all(bool((rows == flat).all()) for rows in picture[colours:].split(1024, 1)):
        opacity = to_unit(flat[None], device)
        for region, bands in run(colour, colours == 1, progress=progress):
            yield region, torch.cat((bands, opacity.expand(-1, -1, *bands.shape[2:])), 1)
        return
    done = [0.0, 0.0]

    def both(stream: int, part: float) -> None:
        done[stream] = part
        progress(sum(done) / 2)

    filled = fill_transparent_map(colour, alpha)
    colour = local(lambda x: to_unit(from_unit(x, picture.dtype)), filled)
    colour_stream = run(colour, colours == 1, progress=partial(both, 0))
    alpha_stream = _limited(run(alpha, True, progress=partial(both, 1)), alpha, size)
    for (region, bands), (_, opacity) in zip(colour_stream, alpha_stream, strict=True):
        yield region, torch.cat((bands, opacity), 1)


def _unit(picture: Tensor, device: torch.device) -> Map:
    """(bands, H, W) in [0, 1]."""
    height, width = picture.shape[1:]
    return Map((height, width), lambda region: to_unit(picture[None, :, region[0], region[1]], device))


def _run(network: strips.Network, x: Map, grey: bool, *, size: tuple[int, int], **options: Any) -> Stream:
    """Enlarge colour; grey is shown as three equal bands, which are averaged."""

    def rgb(region: Region) -> Tensor:
        return x.read(region).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

    for region, bands in strips.enlarge(network, Map(x.size, rgb), size, **options):
        if torch.is_autocast_enabled(bands.device.type) and not bool(bands.isfinite().all()):
            raise OverflowError("half precision is not enough")
        yield region, bands.float().mean(1, keepdim=True) if grey else bands.float()


def _limited(stream: Stream, alpha: Map, size: tuple[int, int]) -> Stream:
    """As :func:`convattn.sr.alpha.limit_to_neighbours`."""
    extremes = local(extremes_around, alpha, halo=1)
    for region, opacity in stream:
        rows, columns = (
            pixel_centres(source, output, opacity.device)[target].long().clamp(part.start, part.stop - 1)
            - part.start
            for source, output, target, part in zip(
                alpha.size, size, target_of(region, alpha.size, size), region, strict=True
            )
        )
        lowest, highest = extremes.read(region)[:, :, rows][..., columns].split(1, 1)
        yield region, opacity.clamp(lowest, highest)


def _numbers(unit: Tensor, dtype: torch.dtype) -> np.ndarray:
    """(1, bands, h, w) in [0, 1] to (h, w, bands) of a picture."""
    return from_unit(unit, dtype)[0].permute(1, 2, 0).cpu().numpy()
