"""The single steps: blur, resize, noise, compression, and the sharpening of targets."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyvips
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from convattn.images.pixel_range import from_unit
from convattn.ops.padding import reflect_pad
from convattn.training.degradation.kernels import gaussian_kernel

__all__ = ["add_gaussian_noise", "add_poisson_noise", "blur", "compress", "resize", "sharpen"]


def blur(images: Tensor, kernels: Tensor) -> Tensor:
    """Filter each image with its own kernel, with reflection at the borders.

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
    """Resize images by interpolation without antialiasing, as published.

    Args:
        images: (N, C, H, W).
        size: Height and width of the output.
        mode: "area", "bilinear" or "bicubic".

    Returns:
        (N, C, *size).
    """
    return F.interpolate(images, size=size, mode=mode)


def add_gaussian_noise(image: Tensor, sigma: float, *, grayscale: bool, generator: Generator) -> Tensor:
    """Add Gaussian noise to an image and clip the result to [0, 1].

    Args:
        image: (C, H, W) in [0, 1].
        sigma: Standard deviation in 1/255.
        grayscale: Whether the noise is equal in all channels.
        generator: Generator on the image's device.

    Returns:
        (C, H, W) in [0, 1].
    """
    shape = (1 if grayscale else len(image), *image.shape[1:])
    noise = torch.randn(shape, generator=generator, device=image.device, dtype=image.dtype)
    return (image + sigma / 255 * noise).clamp(0, 1)


def add_poisson_noise(image: Tensor, strength: float, *, grayscale: bool, generator: Generator) -> Tensor:
    """Add Poisson (shot) noise to an image and clip the result to [0, 1].

    White corresponds to as many photons as the image has distinct values, rounded up to a power of two.

    Args:
        image: (3, H, W) in [0, 1].
        strength: Factor of the noise.
        grayscale: Whether all channels get the noise of the luminance.
        generator: Generator on the image's device.

    Returns:
        (3, H, W) in [0, 1].
    """
    quantized = (image.clamp(0, 1) * 255).round() / 255
    if grayscale:
        quantized = (quantized * quantized.new_tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(
            0, keepdim=True
        )
        quantized = (quantized * 255).round() / 255
    photons = 2 ** math.ceil(math.log2(len(quantized.unique())))
    noise = torch.poisson(quantized * photons, generator=generator) / photons - quantized
    return (image + strength * noise).clamp(0, 1)


def compress(images: Tensor, formats: Sequence[str], qualities: Sequence[int]) -> Tensor:
    """Compress and decompress images with libvips.

    Args:
        images: (N, 3, H, W) in [0, 1]; rounded to 8 bits.
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
    """Compress and decompress ``uint8`` (H, W, 3)."""
    vips_image = pyvips.Image.new_from_array(pixels.numpy(), interpretation="srgb")
    data = {"jpeg": vips_image.jpegsave_buffer, "webp": vips_image.webpsave_buffer}[format](Q=quality)
    return torch.from_numpy(pyvips.Image.new_from_buffer(data, "").numpy())


_SHARPENING = 51, (8.0, 8.0)  # side and standard deviations of the kernel, in pixels


def sharpen(images: Tensor) -> Tensor:
    """Sharpen the edges of training targets by unsharp masking (section 3.5).

    Half of the detail that a wide Gaussian removes is added where that detail exceeds 10/255.

    Args:
        images: (N, C, H, W) in [0, 1].

    Returns:
        (N, C, H, W) in [0, 1].
    """
    detail = images - _soften(images)
    edges = _soften((detail.abs() * 255 > 10).to(images))
    return torch.lerp(images, (images + detail / 2).clamp(0, 1), edges)


def _soften(images: Tensor) -> Tensor:
    """Blur by the Gaussian of the sharpening, along columns and then along rows."""
    profile = gaussian_kernel(*_SHARPENING).sum(0).expand(len(images), -1)
    return blur(blur(images, profile[:, :, None]), profile[:, None, :])
