"""The published protocol of single-image super-resolution, at whole scales and others.

PSNR and SSIM are computed on luma of 8-bit results, without a border as wide as the scale. An image is
cropped to the part that has a low-resolution version of whole pixels; at fractional scales, its upscaled size
is rounded (Lee and Jin, CVPR 2022).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor, nn

from convattn.checkpoints.catalog import default_model
from convattn.errors import InputError
from convattn.evaluation.lpips import LPIPS
from convattn.evaluation.metrics import psnr_y, ssim_y
from convattn.images.io import find_images, read_rgb
from convattn.images.pixel_range import from_unit
from convattn.images.resize import resize_bicubic
from convattn.images.sizes import ScaleRequest, resolve
from convattn.inference.devices import choose_device
from convattn.ops import reflect_pad
from convattn.runtimes.pretrained import from_pretrained

__all__ = [
    "Method",
    "NetworkMethod",
    "Pair",
    "Pipeline",
    "Score",
    "bicubic",
    "choose_method",
    "downscale",
    "evaluate",
    "mean_scores",
    "measure",
    "pairs",
    "with_network",
]

Method = Callable[[Tensor], Tensor]
"""Upscales an image: ``uint8`` (3, H, W) to ``uint8`` (3, scale · H, scale · W), rounded."""

Pipeline = Literal["double", "uint8"]
"""How low-resolution images are made, see :func:`downscale`."""


@dataclass(frozen=True)
class Pair:
    """An image and its low-resolution version, both ``uint8`` (3, H, W)."""

    set: str
    image: str
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class Score:
    """How close an upscaled image is to the original.

    Attributes:
        set: Name of the image set.
        image: Name of the image, or "mean of 5".
        psnr: PSNR-Y in dB; higher is better.
        ssim: SSIM-Y, up to 1; higher is better.
        lpips: LPIPS with AlexNet; lower is better. None if it was not measured.
    """

    set: str
    image: str
    psnr: float
    ssim: float
    lpips: float | None = None


class NetworkMethod:
    """Upscaling by a network, whose input is first continued by reflection to whole attention windows.

    The published figures of ESC and other window networks are measured like this.

    Args:
        network: It is moved to the device and set to evaluation mode.
        scale: Upscaling factor; networks of one scale support no other.
        device: Where to compute.
    """

    def __init__(self, network: nn.Module, scale: float, device: torch.device) -> None:
        place: Any = dict(device=device, memory_format=torch.channels_last)
        self.network: Any = network.eval().to(**place)
        self.scale = scale
        self.device = device

    @torch.no_grad()
    def __call__(self, low: Tensor) -> Tensor:
        """Upscale ``uint8`` (3, H, W)."""
        height, width = low.shape[-2:]
        size = _upscaled_size(height, width, self.scale)
        x = low.to(self.device).unsqueeze(0).float() / 255
        if self.network.scale is None:
            high = self.network(x, size=size)
        else:
            window = getattr(getattr(self.network, "features", self.network), "window_size", 1)
            high = self.network(reflect_pad(x, right=-width % window, bottom=-height % window))
        return from_unit(high[0, :, : size[0], : size[1]], torch.uint8).cpu()


def with_network(network: nn.Module, scale: float, device: torch.device | None = None) -> Method:
    """Return upscaling by a network as a method, see :class:`NetworkMethod`; by default on the CPU."""
    return NetworkMethod(network, scale, device or torch.device("cpu"))


def choose_method(
    model: str | None = None, scale: float | None = None, device: str = "auto"
) -> tuple[Method, float, str]:
    """Return an upscaling method, its scale, and its name.

    Args:
        model: "bicubic", or what :func:`convattn.runtimes.pretrained.from_pretrained` takes; by default the
            bundled model for the scale.
        scale: May be omitted if the weights have only one.
        device: "auto" or a device of torch.

    Raises:
        InputError: There is no such model or device, or the scale is missing, out of range or not the
            model's.
    """
    request = ScaleRequest.parse(scale)
    model = model or default_model(request)
    whole_scale = request.whole_scale if request else None
    network: Any = None if model == "bicubic" else from_pretrained(model, whole_scale)
    scale = resolve(getattr(network, "scale", None), request).scale[0]  # type: ignore[index]
    method = bicubic(scale) if network is None else with_network(network, scale, choose_device(device))
    return method, scale, model


def bicubic(scale: float) -> Method:
    """Return bicubic upscaling as a method, computed in double precision and rounded once."""
    return lambda low: _resize(low, _upscaled_size(low.shape[-2], low.shape[-1], scale))


def downscale(high: Tensor, scale: float, pipeline: Pipeline = "double") -> Tensor:
    """Make the low-resolution version of an image as the benchmarks do, by MATLAB's bicubic interpolation.

    Args:
        high: ``uint8`` (3, H, W).
        scale: How many times smaller the result is.
        pipeline: "double" computes in double precision and rounds once; "uint8" rounds after each of the two
            passes, as MATLAB does with 8-bit images.

    Returns:
        ``uint8`` (3, H / scale, W / scale).
    """
    size = round(high.shape[-2] / scale), round(high.shape[-1] / scale)
    return resize_bicubic(high, size=size) if pipeline == "uint8" else _resize(high, size)


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    return resize_bicubic(image.double(), size=size).add(0.5).floor().clamp(0, 255).to(torch.uint8)


def _upscaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    return ScaleRequest((scale, scale)).of(height, width)


def pairs(
    source: str | Path, scale: float, *, low: str | Path | None = None, pipeline: Pipeline = "double"
) -> Iterator[Pair]:
    """Yield pairs of low- and high-resolution images.

    Args:
        source: A high-resolution image, a folder of them, or a set with the folder ``HR`` and, if its
            low-resolution images are given, ``LR``. Images are cropped to what low-resolution images of whole
            pixels are made of; at whole scales, that has sides divisible by the scale.
        scale: How many times smaller the low-resolution images are.
        low: The low-resolution image or folder; by default ``LR`` of the set, or they are made. A file has
            the name of its high-resolution image, with or without ``x2`` (the scale) at its end.
        pipeline: How they are made, see :func:`downscale`.

    Raises:
        InputError: There are no images, or one is too small to measure, or has no low-resolution version of
            the right size.
    """
    source = Path(source)
    high_folder = source / "HR" if (source / "HR").is_dir() else source
    low_folder = Path(low) if low else None
    if low is None and high_folder != source and (source / "LR").is_dir():
        low_folder = source / "LR"
    name = source.stem if source.is_file() else source.resolve().name
    for path in find_images(high_folder) if source.is_dir() else [source]:
        yield Pair(name, path.name, *_read_pair(path, scale, low_folder, pipeline))


def _read_pair(path: Path, scale: float, low: Path | None, pipeline: Pipeline) -> tuple[Tensor, Tensor]:
    high = read_rgb(path)
    rows, columns = (math.floor(side / scale + 1e-9) for side in high.shape[1:])
    height, width = _upscaled_size(rows, columns, scale)
    high = high[:, :height, :width]
    if min(height, width) < 2 * _shave(scale) + 11:
        raise InputError(f"{path} is too small to be measured at x{scale:g}; leave it out.")
    small = downscale(high, scale, pipeline) if low is None else _read_low(low, path, scale)
    if small.shape[1:] != (rows, columns):
        raise InputError(
            f"The low-resolution version of {path.name} has {small.shape[2]}x{small.shape[1]} pixels, but "
            f"must have {columns}x{rows} at x{scale:g}."
        )
    return small, high


def _read_low(low: Path, high: Path, scale: float) -> Tensor:
    if not low.is_dir():
        return read_rgb(low)
    stems = {high.stem, f"{high.stem}x{scale:g}", f"{high.stem}_x{scale:g}"}
    for path in find_images(low):
        if path.stem in stems:
            return read_rgb(path)
    raise InputError(f"{low} has no low-resolution version of {high.name}; it should be named like it.")


def _shave(scale: float) -> int:
    """Return the width of the border that does not count."""
    return math.ceil(scale)


def evaluate(
    method: Method, pairs: Iterable[Pair], scale: float, lpips: LPIPS | None = None
) -> Iterator[Score]:
    """Upscale low-resolution images and yield how close each result is to the original."""
    for pair in pairs:
        yield measure(method(pair.low), pair, scale, lpips)


def measure(result: Tensor, pair: Pair, scale: float, lpips: LPIPS | None = None) -> Score:
    """Compare an upscaled image, ``uint8`` (3, H, W), with the high-resolution image of a pair."""
    psnr, ssim = (metric(result, pair.high, shave=_shave(scale)) for metric in (psnr_y, ssim_y))
    return Score(pair.set, pair.image, psnr, ssim, lpips.distance(result, pair.high) if lpips else None)


def mean_scores(scores: Iterable[Score]) -> list[Score]:
    """Return the mean of each set, in the order of the sets; it is called "mean of" so many images."""
    sets: dict[str, list[Score]] = {}
    for score in scores:
        sets.setdefault(score.set, []).append(score)
    return [_mean(name, members) for name, members in sets.items()]


def _mean(name: str, scores: list[Score]) -> Score:
    distances = [score.lpips for score in scores if score.lpips is not None]
    return Score(
        name,
        f"mean of {len(scores)}",
        fmean(score.psnr for score in scores),
        fmean(score.ssim for score in scores),
        fmean(distances) if distances else None,
    )
