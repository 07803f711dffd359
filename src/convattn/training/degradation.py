"""What cameras, programs and the web do to images, for training: Real-ESRGAN's two-stage degradation.

An image is blurred, resized, made noisy and compressed, then all that again, then brought to its final size
(Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", ICCVW 2021,
section 3). Each step is a function of its own; :func:`degrade` draws their parameters and applies them.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import pyvips
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from convattn.images.pixel_range import from_unit
from convattn.ops.padding import reflect_pad

__all__ = [
    "Degradation",
    "Kernel",
    "Stage",
    "add_gaussian_noise",
    "add_poisson_noise",
    "blur",
    "compress",
    "contact_sheet",
    "degrade",
    "draw_kernel",
    "gaussian_kernel",
    "plateau_kernel",
    "resize",
    "sharpen",
    "sinc_kernel",
]

Range = tuple[float, float]


@dataclass(frozen=True)
class Kernel:
    """A kind of blur kernel.

    Attributes:
        profile: "gaussian" or "plateau".
        round: Whether both its standard deviations are the same.
        power: The least and the largest exponent; below and above 1 come equally often.
        probability: Of this kind among all.
    """

    profile: str
    round: bool
    power: Range
    probability: float


@dataclass(frozen=True)
class Stage:
    """One round of blur, resizing, noise and compression; the numbers are those of the first round.

    Attributes:
        blur: Probability of any blur.
        sigma: Standard deviations of blur kernels, in pixels.
        resizing: Probabilities of upscaling, shrinking and neither.
        factor: The smallest and the largest factor of resizing.
        gaussian_noise: Standard deviations, in 1/255.
        poisson_noise: Factors of the noise that counting photons would give.
        quality: Of the compression, 1 to 100.
    """

    blur: float = 1.0
    sigma: Range = (0.2, 3.0)
    resizing: tuple[float, float, float] = (0.2, 0.7, 0.1)
    factor: Range = (0.15, 1.5)
    gaussian_noise: Range = (1, 30)
    poisson_noise: Range = (0.05, 3)
    quality: tuple[int, int] = (30, 95)


@dataclass(frozen=True)
class Degradation:
    """The published settings, but for WebP, which was not among them.

    Attributes:
        scale: How many times smaller the images become.
        first: The first round.
        second: The second round, whose sizes are relative to the final one.
        kernel_sizes: The smallest and the largest side of blur kernels, odd.
        sinc: Probability that a blur is a sinc filter.
        kernels: Of the other blurs.
        final_sinc: Probability of a sinc filter after everything else, or just before the last compression.
        gaussian: Probability that noise is Gaussian and not Poisson.
        grayscale: Probability that noise is the same in all channels.
        webp: Probability that a compression is WebP and not JPEG.
    """

    scale: int = 4
    first: Stage = field(default_factory=Stage)
    second: Stage = field(
        default_factory=lambda: Stage(
            blur=0.8,
            sigma=(0.2, 1.5),
            resizing=(0.3, 0.4, 0.3),
            factor=(0.3, 1.2),
            gaussian_noise=(1, 25),
            poisson_noise=(0.05, 2.5),
        )
    )
    kernel_sizes: tuple[int, int] = (7, 21)
    sinc: float = 0.1
    kernels: tuple[Kernel, ...] = (
        Kernel("gaussian", True, (1, 1), 0.45),
        Kernel("gaussian", False, (1, 1), 0.25),
        Kernel("gaussian", True, (0.5, 4), 0.12),
        Kernel("gaussian", False, (0.5, 4), 0.03),
        Kernel("plateau", True, (1, 2), 0.12),
        Kernel("plateau", False, (1, 2), 0.03),
    )
    final_sinc: float = 0.8
    gaussian: float = 0.5
    grayscale: float = 0.4
    webp: float = 0.2


# --- The steps ---


def gaussian_kernel(size: int, sigma: Range, angle: float = 0.0, power: float = 1.0) -> Tensor:
    """Return a Gaussian blur kernel, generalised by a power: exp(-(xᵀΣ⁻¹x)^power / 2).

    Args:
        size: Side of the kernel, odd.
        sigma: Standard deviations along the kernel's own two axes, in pixels.
        angle: By which these axes are turned, in radians.
        power: 1 for a Gaussian, less for a pointed kernel, more for a flat one.

    Returns:
        (size, size) in float64, of sum 1.
    """
    return _normalized(torch.exp(-(_quadratic_form(size, sigma, angle) ** power) / 2))


def plateau_kernel(size: int, sigma: Range, angle: float = 0.0, power: float = 1.0) -> Tensor:
    """Return a kernel with a plateau, 1 / (1 + (xᵀΣ⁻¹x)^power); see :func:`gaussian_kernel`."""
    return _normalized(1 / (1 + _quadratic_form(size, sigma, angle) ** power))


def sinc_kernel(size: int, cutoff: float) -> Tensor:
    """Return the ideal circular low-pass filter, cut off at a square: it rings (section 3.4).

    Args:
        size: Side of the kernel, odd.
        cutoff: The highest frequency that passes, in radians a pixel, 0 to π.

    Returns:
        (size, size) in float64, of sum 1, with negative values.
    """
    x, y = _grid(size)
    radius = torch.hypot(x, y)
    ring = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    return _normalized(torch.where(radius > 0, ring, cutoff**2 / (4 * math.pi)))


def _grid(size: int) -> tuple[Tensor, Tensor]:
    """Return each pixel's distance from the middle, across and down."""
    offset = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    return offset[None, :], offset[:, None]


def _quadratic_form(size: int, sigma: Range, angle: float) -> Tensor:
    """Return xᵀΣ⁻¹x at each pixel."""
    x, y = _grid(size)
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    return (along / sigma[0]) ** 2 + (across / sigma[1]) ** 2


def _normalized(kernel: Tensor) -> Tensor:
    return kernel / kernel.sum()


def blur(images: Tensor, kernels: Tensor) -> Tensor:
    """Filter each image with a kernel of its own; beyond the borders images are reflected.

    Args:
        images: (N, C, H, W).
        kernels: (N, K, L), K and L odd.

    Returns:
        (N, C, H, W).
    """
    n, channels, height, width = images.shape
    rows, columns = kernels.shape[1] // 2, kernels.shape[2] // 2
    padded = reflect_pad(images, left=columns, right=columns, top=rows, bottom=rows)
    weight = kernels.to(images).repeat_interleave(channels, 0)[:, None]
    filtered = F.conv2d(padded.reshape(1, n * channels, *padded.shape[2:]), weight, groups=n * channels)
    return filtered.reshape(n, channels, height, width)


def resize(images: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resize images by "area", "bilinear" or "bicubic" interpolation; the latter two alias, as published.

    Args:
        images: (N, C, H, W).
        size: The new height and width.
        mode: As above.
    """
    return F.interpolate(images, size=size, mode=mode)


def add_gaussian_noise(image: Tensor, sigma: float, *, grayscale: bool, generator: Generator) -> Tensor:
    """Add Gaussian noise to an image and clip the result to [0, 1].

    Args:
        image: (C, H, W) in [0, 1].
        sigma: Standard deviation, in 1/255.
        grayscale: Whether all channels get the same noise.
        generator: On the image's device.
    """
    shape = (1 if grayscale else len(image), *image.shape[1:])
    noise = torch.randn(shape, generator=generator, device=image.device, dtype=image.dtype)
    return (image + sigma / 255 * noise).clamp(0, 1)


def add_poisson_noise(image: Tensor, strength: float, *, grayscale: bool, generator: Generator) -> Tensor:
    """Add the noise of counted photons to an image and clip the result to [0, 1].

    White is as many photons as the image has different values, rounded up to a power of two.

    Args:
        image: (3, H, W) in [0, 1].
        strength: What the noise is multiplied with.
        grayscale: Whether all channels get the same noise, that of the luminance.
        generator: On the image's device.
    """
    seen = (image.clamp(0, 1) * 255).round() / 255
    if grayscale:
        seen = (seen * seen.new_tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True)
        seen = (seen * 255).round() / 255
    photons = 2 ** math.ceil(math.log2(len(seen.unique())))
    noise = torch.poisson(seen * photons, generator=generator) / photons - seen
    return (image + strength * noise).clamp(0, 1)


def compress(images: Tensor, formats: Sequence[str], qualities: Sequence[int]) -> Tensor:
    """Compress and decompress images with libvips.

    Args:
        images: (N, 3, H, W); rounded to 8 bits.
        formats: "jpeg" or "webp" for each image.
        qualities: 1 to 100 for each image.

    Returns:
        (N, 3, H, W) in [0, 1], on the same device.
    """
    pixels = from_unit(images, torch.uint8).permute(0, 2, 3, 1).cpu().contiguous()
    with ThreadPoolExecutor() as pool:
        decoded = list(pool.map(_through_file, pixels, formats, qualities))
    return torch.stack(decoded).permute(0, 3, 1, 2).to(images) / 255


def _through_file(pixels: Tensor, format: str, quality: int) -> Tensor:
    """Compress (H, W, 3) in uint8."""
    vips_image = pyvips.Image.new_from_array(pixels.numpy(), interpretation="srgb")
    data = {"jpeg": vips_image.jpegsave_buffer, "webp": vips_image.webpsave_buffer}[format](Q=quality)
    return torch.from_numpy(pyvips.Image.new_from_buffer(data, "").numpy())


_SHARPENING = 51, (8.0, 8.0)  # side of the kernel and its sigma, in pixels


def sharpen(images: Tensor) -> Tensor:
    """Sharpen training targets by unsharp masking where there is an edge (section 3.5).

    Half of what a wide Gaussian takes away is added; where that is less than 10/255 all around, nothing is.

    Args:
        images: (N, C, H, W) in [0, 1].
    """
    detail = images - _soften(images)
    edges = _soften((detail.abs() * 255 > 10).to(images))
    return torch.lerp(images, (images + detail / 2).clamp(0, 1), edges)


def _soften(images: Tensor) -> Tensor:
    """Blur by the sharpening's round Gaussian, along columns and then along rows."""
    profile = gaussian_kernel(*_SHARPENING).sum(0).expand(len(images), -1)
    return blur(blur(images, profile[:, :, None]), profile[:, None, :])


# --- Drawing their parameters ---


class _Round(NamedTuple):
    """What one image meets in one round."""

    kernel: Tensor
    gaussian: bool
    grayscale: bool
    strength: float
    format: str
    quality: int


class _Fate(NamedTuple):
    """What one image meets."""

    first: _Round
    second: _Round
    last_kernel: Tensor
    noise_seed: int


class _Course(NamedTuple):
    """What all images of a batch share, so that they stay of one size."""

    factors: tuple[float, float]
    modes: tuple[str, str, str]
    compress_last: bool


_MODES = ("area", "bilinear", "bicubic")
_MOST = 2**62  # of seeds


def draw_kernel(settings: Degradation, sigma: Range, generator: Generator) -> Tensor:
    """Draw a blur kernel (section 3.1, or a sinc filter).

    Args:
        settings: Which kernels there are.
        sigma: The least and the largest standard deviation, in pixels.
        generator: On the CPU.

    Returns:
        (K, K) in float64, of sum 1; K is the largest of the settings' sides.
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
    """Put zeros around a kernel, so that all of a batch are of one size."""
    margin = (settings.kernel_sizes[1] - len(kernel)) // 2
    return F.pad(kernel, (margin,) * 4)


def _draw_round(settings: Degradation, stage: Stage, generator: Generator) -> _Round:
    blurred = _chance(stage.blur, generator)
    gaussian = _chance(settings.gaussian, generator)
    return _Round(
        kernel=draw_kernel(settings, stage.sigma, generator) if blurred else _no_blur(settings),
        gaussian=gaussian,
        grayscale=_chance(settings.grayscale, generator),
        strength=_uniform(stage.gaussian_noise if gaussian else stage.poisson_noise, generator),
        format="webp" if _chance(settings.webp, generator) else "jpeg",
        quality=_integer(stage.quality, generator),
    )


def _draw_fate(settings: Degradation, generator: Generator) -> _Fate:
    return _Fate(
        first=_draw_round(settings, settings.first, generator),
        second=_draw_round(settings, settings.second, generator),
        last_kernel=_draw_final_kernel(settings, generator),
        noise_seed=_integer((0, _MOST), generator),
    )


def _draw_course(settings: Degradation, generator: Generator) -> _Course:
    first, second, last = (_MODES[_integer((0, 2), generator)] for _ in range(3))
    return _Course(
        factors=(_draw_factor(settings.first, generator), _draw_factor(settings.second, generator)),
        modes=(first, second, last),
        compress_last=_chance(0.5, generator),
    )


def _draw_factor(stage: Stage, generator: Generator) -> float:
    smallest, largest = stage.factor
    ranges = ((1.0, largest), (smallest, 1.0), (1.0, 1.0))
    return _uniform(ranges[_choose(stage.resizing, generator)], generator)


def _uniform(limits: Range, generator: Generator) -> float:
    low, high = limits
    return low + (high - low) * torch.rand((), dtype=torch.float64, generator=generator).item()


def _integer(limits: tuple[int, int], generator: Generator) -> int:
    """Both limits can come."""
    return int(torch.randint(limits[0], limits[1] + 1, (), generator=generator))


def _chance(probability: float, generator: Generator) -> bool:
    return _uniform((0, 1), generator) < probability


def _choose(probabilities: Sequence[float], generator: Generator) -> int:
    return int(torch.multinomial(torch.tensor(probabilities, dtype=torch.float64), 1, generator=generator))


# --- All of it ---


def degrade(images: Tensor, settings: Degradation | None = None, *, generator: Generator) -> Tensor:
    """Make low-quality images of good ones.

    The sizes between the steps, and the order of the last two, are drawn once for the batch; everything else
    for each image. What becomes of an image follows from the generator's state and its place in the batch,
    not from the images beside it nor from how many they are.

    Args:
        images: (N, 3, H, W) in [0, 1] on any device; H and W multiples of the scale. For training they are
            sharpened first, as published.
        settings: What may happen to them; by default what was published.
        generator: On the CPU.

    Returns:
        (N, 3, H / scale, W / scale) in whole multiples of 1/255, on the same device.

    Raises:
        ValueError: The sides are no multiples of the scale.
    """
    settings = settings or Degradation()
    full = images.shape[2], images.shape[3]
    small = full[0] // settings.scale, full[1] // settings.scale
    if full != (small[0] * settings.scale, small[1] * settings.scale):
        raise ValueError(f"Sides of {full[0]}x{full[1]} pixels are no multiples of {settings.scale}.")
    course = _draw_course(settings, generator)
    seeds = [_integer((0, _MOST), generator) for _ in images]
    fates = [_draw_fate(settings, Generator().manual_seed(seed)) for seed in seeds]
    noise = [Generator(images.device).manual_seed(fate.noise_seed) for fate in fates]
    first, second = [fate.first for fate in fates], [fate.second for fate in fates]
    last_kernels = torch.stack([fate.last_kernel for fate in fates])

    x = blur(images, torch.stack([round.kernel for round in first]))
    x = resize(x, _times(course.factors[0], full), course.modes[0])
    x = _compress(_add_noise(x, first, noise), first)
    x = blur(x, torch.stack([round.kernel for round in second]))
    x = resize(x, _times(course.factors[1], small), course.modes[1])
    x = _add_noise(x, second, noise)
    if course.compress_last:
        return _compress(blur(resize(x, small, course.modes[2]), last_kernels), second)
    x = blur(resize(_compress(x, second), small, course.modes[2]), last_kernels)
    return (x.clamp(0, 1) * 255).round() / 255


def _times(factor: float, size: tuple[int, int]) -> tuple[int, int]:
    return max(1, int(factor * size[0])), max(1, int(factor * size[1]))


def _add_noise(images: Tensor, rounds: Sequence[_Round], generators: Sequence[Generator]) -> Tensor:
    noisy = []
    for image, round, generator in zip(images, rounds, generators, strict=True):
        add = add_gaussian_noise if round.gaussian else add_poisson_noise
        noisy.append(add(image, round.strength, grayscale=round.grayscale, generator=generator))
    return torch.stack(noisy)


def _compress(images: Tensor, rounds: Sequence[_Round]) -> Tensor:
    return compress(images, [round.format for round in rounds], [round.quality for round in rounds])


def contact_sheet(
    image: Tensor,
    count: int,
    settings: Degradation | None = None,
    *,
    generator: Generator,
    side: int = 384,
) -> Tensor:
    """Show what training sees of an image: the sharpened middle, and what becomes of it, side by side.

    Args:
        image: (3, H, W) in [0, 1], H and W at least the scale.
        count: How many examples to draw.
        settings: As for :func:`degrade`.
        generator: On the CPU.
        side: How much of the image to show at most, in pixels.

    Returns:
        (3, H', W') in [0, 1]: the target and then the examples in rows, upscaled by repetition, on white.
    """
    settings = settings or Degradation()
    target = sharpen(_middle(image, side, settings.scale)[None])
    examples = [degrade(target, settings, generator=generator) for _ in range(count)]
    shown = [target[0], *(F.interpolate(example, size=target.shape[2:])[0] for example in examples)]
    columns = math.ceil(math.sqrt(len(shown)))
    shown += [torch.ones_like(target[0])] * (-len(shown) % columns)
    rows = [torch.cat(shown[start : start + columns], 2) for start in range(0, len(shown), columns)]
    return torch.cat(rows, 1)


def _middle(image: Tensor, side: int, scale: int) -> Tensor:
    height, width = (min(length, side) // scale * scale for length in image.shape[1:])
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    return image[:, top : top + height, left : left + width]
