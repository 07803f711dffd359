"""The whole degradation of a batch of images."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from convattn.training.degradation import steps
from convattn.training.degradation.parameters import (
    Round,
    draw_batch_parameters,
    draw_image_parameters,
    draw_seed,
)
from convattn.training.degradation.settings import Degradation
from convattn.training.degradation.steps import blur, resize

__all__ = ["degrade"]


def degrade(images: Tensor, settings: Degradation | None = None, *, generator: Generator) -> Tensor:
    """Make low-resolution images with artifacts from high-quality images.

    Intermediate sizes and the order of the last two steps are drawn per batch, everything else per image. The
    result for an image depends on the generator's state and its index in the batch only, not on the other
    images or their number.

    Args:
        images: (N, 3, H, W) in [0, 1] on any device; H and W are multiples of the scale. Training sharpens
            them first, as published.
        settings: The settings; by default the published ones.
        generator: Generator on the CPU.

    Returns:
        (N, 3, H / scale, W / scale) in multiples of 1/255, on the same device.

    Raises:
        ValueError: The sides are not multiples of the scale.
    """
    settings = settings or Degradation()
    full = images.shape[2], images.shape[3]
    small = full[0] // settings.scale, full[1] // settings.scale
    if full != (small[0] * settings.scale, small[1] * settings.scale):
        raise ValueError(f"Sides of {full[0]}x{full[1]} pixels are not multiples of {settings.scale}.")
    shared = draw_batch_parameters(settings, generator)
    seeds = [draw_seed(generator) for _ in images]
    drawn = [draw_image_parameters(settings, Generator().manual_seed(seed)) for seed in seeds]
    noise = [Generator(images.device).manual_seed(parameters.noise_seed) for parameters in drawn]
    first, second = [parameters.first for parameters in drawn], [parameters.second for parameters in drawn]
    last_kernels = torch.stack([parameters.last_kernel for parameters in drawn])

    x = blur(images, torch.stack([round.kernel for round in first]))
    x = resize(x, _times(shared.factors[0], full), shared.modes[0])
    x = _compress(_add_noise(x, first, noise), first)
    x = blur(x, torch.stack([round.kernel for round in second]))
    x = resize(x, _times(shared.factors[1], small), shared.modes[1])
    x = _add_noise(x, second, noise)
    if shared.compress_last:
        return _compress(blur(resize(x, small, shared.modes[2]), last_kernels), second)
    x = blur(resize(_compress(x, second), small, shared.modes[2]), last_kernels)
    return (x.clamp(0, 1) * 255).round() / 255


def _times(factor: float, size: tuple[int, int]) -> tuple[int, int]:
    return max(1, int(factor * size[0])), max(1, int(factor * size[1]))


def _add_noise(images: Tensor, rounds: Sequence[Round], generators: Sequence[Generator]) -> Tensor:
    noisy = []
    for image, round, generator in zip(images, rounds, generators, strict=True):
        add = steps.add_gaussian_noise if round.gaussian else steps.add_poisson_noise
        noisy.append(add(image, round.strength, grayscale=round.grayscale, generator=generator))
    return torch.stack(noisy)


def _compress(images: Tensor, rounds: Sequence[Round]) -> Tensor:
    return steps.compress(images, [round.format for round in rounds], [round.quality for round in rounds])
