"""PSNR-Y and SSIM-Y by the published protocol of single-image super-resolution, at whole scales and others.

An image is cropped to the part that has a low-resolution version at the scale: that has as many whole pixels
as fit, and its upscaled image is rounded to whole pixels (Lee and Jin, CVPR 2022).
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from convattn.checkpoints.catalog import default_model
from convattn.checkpoints.loading import from_pretrained
from convattn.errors import InputError
from convattn.evaluation.metrics import psnr_y, ssim_y
from convattn.images.io import find_images, read_rgb
from convattn.images.pixel_range import from_unit
from convattn.images.resize import resize_bicubic
from convattn.images.sizes import ScaleRequest, settled
from convattn.inference.devices import choose_device
from convattn.ops import reflect_pad

__all__ = [
    "Method",
    "Pair",
    "Score",
    "as_csv",
    "as_json",
    "bicubic",
    "evaluate",
    "mean_scores",
    "pairs",
    "shrink",
    "with_network",
]

Method = Callable[[Tensor], Tensor]
"""Upscales an image: ``uint8`` (3, H, W) to ``uint8`` (3, s*H, s*W), sides rounded."""

Pipeline = Literal["double", "uint8"]


@dataclass(frozen=True)
class Pair:
    """An image and its low-resolution version, both ``uint8`` (3, H, W)."""

    set: str
    image: str
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class Score:
    """How well an image was upscaled: PSNR-Y in dB and SSIM-Y."""

    set: str
    image: str
    psnr: float
    ssim: float


def with_network(network: nn.Module, scale: float, device: torch.device | None = None) -> Method:
    """Return upscaled image by a network, its input continued by reflection to whole attention windows.

    Args:
        network: it is moved to the device and set to evaluation.
        scale: how many times larger results are; networks of one scale have no other.
        device: where to compute; by default the CPU.
    """
    device = device or torch.device("cpu")
    network = network.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    features: Any = getattr(network, "features", network)

    @torch.no_grad()
    def upscale(low: Tensor) -> Tensor:
        height, width = low.shape[-2:]
        size = _upscaled(height, width, scale)
        x = low.to(device).unsqueeze(0).float() / 255
        if network.scale is None:
            high = network(x, size=size)
        else:
            window = getattr(features, "window_size", 1)
            high = network(reflect_pad(x, right=-width % window, bottom=-height % window))
        return from_unit(high[0, :, : size[0], : size[1]], torch.uint8).cpu()

    return upscale


def choose_method(
    model: str | None = None, scale: float | None = None, device: str = "auto"
) -> tuple[Method, float, str]:
    """Return a method of upscaled image by its name, its scale, and the name.

    Args:
        model: ``bicubic``, or what :func:`convattn.checkpoints.loading.from_pretrained` takes; by default
            the bundled weights for the scale.
        scale: may be left out where the weights have but one.
        device: ``auto`` or a device of torch.

    Raises:
        InputError: if there is no such model or device, or the scale is missing, out of range or not the
            model's.
    """
    wish = ScaleRequest.wished(scale)
    model = model or default_model(wish)
    network: Any = None if model == "bicubic" else from_pretrained(model, wish.whole_scale if wish else None)
    scale = settled(getattr(network, "scale", None), wish).scale[0]  # type: ignore[index]
    method = bicubic(scale) if network is None else with_network(network, scale, choose_device(device))
    return method, scale, model


def bicubic(scale: float) -> Method:
    """Return bicubic upscaled image as a method, computed in double precision and rounded once."""
    return lambda low: _double(low, _upscaled(low.shape[-2], low.shape[-1], scale))


def shrink(high: Tensor, scale: float, pipeline: Pipeline = "double") -> Tensor:
    """Make the low-resolution version of an image as the benchmarks' are made.

    Args:
        high: ``uint8`` (3, H, W), as large as the result upscaled.
        scale: how many times smaller the result is.
        pipeline: ``double`` computes in double precision and rounds once; ``uint8`` rounds after each of the
            two passes, as MATLAB does when it is given 8-bit images.
    """
    size = round(high.shape[-2] / scale), round(high.shape[-1] / scale)
    return resize_bicubic(high, size=size) if pipeline == "uint8" else _double(high, size)


def _double(image: Tensor, size: tuple[int, int]) -> Tensor:
    return resize_bicubic(image.double(), size=size).add(0.5).floor().clamp(0, 255).to(torch.uint8)


def _upscaled(height: int, width: int, scale: float) -> tuple[int, int]:
    return ScaleRequest((scale, scale)).of(height, width)


def pairs(
    source: str | Path, scale: float, *, low: str | Path | None = None, pipeline: Pipeline = "double"
) -> Iterator[Pair]:
    """Yield the pairs of an image, a folder of images, or a set whose images lie in its folder ``HR``.

    Args:
        source: high-resolution images; they are cropped to what low-resolution images of whole pixels are
            made of, which at whole scales has sides divisible by the scale.
        scale: how many times smaller the low-resolution images are.
        low: the low-resolution image or folder; by default they are made. A file in it may have the same
            name as the high-resolution one or that name with ``x2`` (the scale) at its end.
        pipeline: how they are made, see :func:`shrink`.

    Raises:
        InputError: if there are no images, one has no low-resolution version, one of another size than
            expected, or one too small to measure.
    """
    source = Path(source)
    high_folder = source / "HR" if (source / "HR").is_dir() else source
    for path in find_images(high_folder) if source.is_dir() else [source]:
        high = read_rgb(path)
        rows, columns = (math.floor(side / scale + 1e-9) for side in high.shape[1:])
        height, width = _upscaled(rows, columns, scale)
        high = high[:, :height, :width]
        if min(height, width) < 2 * _shave(scale) + 11:
            raise InputError(f"{path} is too small to be measured at x{scale:g}; leave it out.")
        small = shrink(high, scale, pipeline) if low is None else _read_low(Path(low), path, scale)
        if small.shape[1:] != (rows, columns):
            raise InputError(
                f"The low-resolution version of {path.name} has {small.shape[2]}x{small.shape[1]} pixels, "
                f"but must have {columns}x{rows} at x{scale:g}."
            )
        yield Pair(source.stem if source.is_file() else source.resolve().name, path.name, small, high)


def _read_low(low: Path, high: Path, scale: float) -> Tensor:
    if not low.is_dir():
        return read_rgb(low)
    stems = {high.stem, f"{high.stem}x{scale:g}", f"{high.stem}_x{scale:g}"}
    for path in find_images(low):
        if path.stem in stems:
            return read_rgb(path)
    raise InputError(f"{low} has no low-resolution version of {high.name}; it should be named like it.")


def _shave(scale: float) -> int:
    """Pixels at each border that do not count."""
    return math.ceil(scale)


def evaluate(method: Method, pairs: Iterable[Pair], scale: float) -> Iterator[Score]:
    """Upscale low-resolution images and yield how near each comes to the truth."""
    for pair in pairs:
        result = method(pair.low)
        psnr, ssim = (measure(result, pair.high, shave=_shave(scale)) for measure in (psnr_y, ssim_y))
        yield Score(pair.set, pair.image, psnr, ssim)


def mean_scores(scores: Iterable[Score]) -> list[Score]:
    """Return the mean of each set, in the sets' order; it is called "mean of" so many images."""
    sets: dict[str, list[Score]] = {}
    for score in scores:
        sets.setdefault(score.set, []).append(score)
    return [
        Score(
            name,
            f"mean of {len(members)}",
            sum(score.psnr for score in members) / len(members),
            sum(score.ssim for score in members) / len(members),
        )
        for name, members in sets.items()
    ]


def as_csv(scores: Iterable[Score]) -> str:
    """Return a line for each score under a heading."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["set", "image", "psnr_y", "ssim_y"])
    lines.writerows([score.set, score.image, f"{score.psnr:.4f}", f"{score.ssim:.6f}"] for score in scores)
    return text.getvalue()


def as_json(scores: Iterable[Score]) -> str:
    """Return the scores as a JSON list of objects; an infinite PSNR, of equal images, is null."""
    rows = [asdict(score) | {"psnr": score.psnr if math.isfinite(score.psnr) else None} for score in scores]
    return json.dumps(rows, indent=2) + "\n"
