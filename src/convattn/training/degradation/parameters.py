"""Random parameters of the degradation."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from convattn.training.degradation.kernels import gaussian_kernel, plateau_kernel, sinc_kernel
from convattn.training.degradation.settings import Degradation, Range, Stage

__all__ = [
    "BatchParameters",
    "ImageParameters",
    "Round",
    "draw_batch_parameters",
    "draw_image_parameters",
    "draw_kernel",
    "draw_seed",
]


class Round(NamedTuple):
    """Parameters of one image in one round."""

    kernel: Tensor
    gaussian: bool
    grayscale: bool
    strength: float
    format: str
    quality: int


class ImageParameters(NamedTuple):
    """Parameters of one image."""

    first: Round
    second: Round
    last_kernel: Tensor
    noise_seed: int


class BatchParameters(NamedTuple):
    """Parameters that all images of a batch share, so that their sizes stay equal."""

    factors: tuple[float, float]
    modes: tuple[str, str, str]
    compress_last: bool


_MODES = ("area", "bilinear", "bicubic")
_LARGEST_SEED = 2**62


def draw_kernel(settings: Degradation, sigma: Range, generator: Generator) -> Tensor:
    """Draw a blur kernel: one of the settings' kinds (section 3.1) or a sinc filter.

    Args:
        settings: The kinds of kernels and their probabilities.
        sigma: Smallest and largest standard deviation in pixels.
        generator: Generator on the CPU.

    Returns:
        (K, K) in float64 with sum 1; K is the largest kernel size of the settings.
    """
    size = _draw_size(settings, generator)
    if _chance(settings.sinc, generator):
        lowest = math.pi / 3 if size < 13 else math.pi / 5
        return _fit(sinc_kernel(size, _uniform((lowest, math.pi), generator)), settings)
    kind = settings.kernels[_choose([kernel.probability for kernel in settings.kernels], generator)]
    widths = _uniform(sigma, generator), _uniform(sigma, generator)
    angle = _uniform((-math.pi, math.pi), generator)
    low, high = kind.power
    power = _uniform((low, 1) if _chance(0.5, generator) else (1, high), generator)
    make = gaussian_kernel if kind.profile == "gaussian" else plateau_kernel
    return _fit(make(size, (widths[0], widths[0]) if kind.round else widths, angle, power), settings)


def _draw_final_kernel(settings: Degradation, generator: Generator) -> Tensor:
    if not _chance(settings.final_sinc, generator):
        return _no_blur(settings)
    size = _draw_size(settings, generator)
    return _fit(sinc_kernel(size, _uniform((math.pi / 3, math.pi), generator)), settings)


def _draw_size(settings: Degradation, generator: Generator) -> int:
    smallest, largest = settings.kernel_sizes
    return smallest + 2 * _integer((0, (largest - smallest) // 2), generator)


def _no_blur(settings: Degradation) -> Tensor:
    return _fit(torch.ones(1, 1, dtype=torch.float64), settings)


def _fit(kernel: Tensor, settings: Degradation) -> Tensor:
    """Pad a kernel with zeros to the largest kernel size."""
    margin = (settings.kernel_sizes[1] - len(kernel)) // 2
    return F.pad(kernel, (margin,) * 4)


def _draw_round(settings: Degradation, stage: Stage, generator: Generator) -> Round:
    blurred = _chance(stage.blur, generator)
    gaussian = _chance(settings.gaussian, generator)
    return Round(
        kernel=draw_kernel(settings, stage.sigma, generator) if blurred else _no_blur(settings),
        gaussian=gaussian,
        grayscale=_chance(settings.grayscale, generator),
        strength=_uniform(stage.gaussian_noise if gaussian else stage.poisson_noise, generator),
        format="webp" if _chance(settings.webp, generator) else "jpeg",
        quality=_integer(stage.quality, generator),
    )


def draw_image_parameters(settings: Degradation, generator: Generator) -> ImageParameters:
    """Draw the parameters of one image."""
    return ImageParameters(
        first=_draw_round(settings, settings.first, generator),
        second=_draw_round(settings, settings.second, generator),
        last_kernel=_draw_final_kernel(settings, generator),
        noise_seed=draw_seed(generator),
    )


def draw_batch_parameters(settings: Degradation, generator: Generator) -> BatchParameters:
    """Draw the parameters that a batch shares."""
    first, second, last = (_MODES[_integer((0, 2), generator)] for _ in range(3))
    return BatchParameters(
        factors=(_draw_factor(settings.first, generator), _draw_factor(settings.second, generator)),
        modes=(first, second, last),
        compress_last=_chance(0.5, generator),
    )


def draw_seed(generator: Generator) -> int:
    """Draw the seed of another generator."""
    return _integer((0, _LARGEST_SEED), generator)


def _draw_factor(stage: Stage, generator: Generator) -> float:
    smallest, largest = stage.factor
    ranges = ((1.0, largest), (smallest, 1.0), (1.0, 1.0))
    return _uniform(ranges[_choose(stage.resizing, generator)], generator)


def _uniform(limits: Range, generator: Generator) -> float:
    low, high = limits
    return low + (high - low) * torch.rand((), dtype=torch.float64, generator=generator).item()


def _integer(limits: tuple[int, int], generator: Generator) -> int:
    """Draw an integer; both limits are included."""
    return int(torch.randint(limits[0], limits[1] + 1, (), generator=generator))


def _chance(probability: float, generator: Generator) -> bool:
    return _uniform((0, 1), generator) < probability


def _choose(probabilities: Sequence[float], generator: Generator) -> int:
    return int(torch.multinomial(torch.tensor(probabilities, dtype=torch.float64), 1, generator=generator))
