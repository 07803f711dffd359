"""Blur kernels and the kernels of ideal low-pass filters."""

import math

import torch
from torch import Tensor

from convattn.training.degradation.settings import Range

__all__ = ["gaussian_kernel", "plateau_kernel", "sinc_kernel"]


def gaussian_kernel(size: int, sigma: Range, angle: float = 0.0, power: float = 1.0) -> Tensor:
    """Return a Gaussian blur kernel, generalized by a power: exp(-(xᵀΣ⁻¹x)^power / 2).

    Args:
        size: Side of the kernel, odd.
        sigma: Standard deviations along the kernel's two axes, in pixels.
        angle: Rotation of these axes in radians.
        power: 1 for a Gaussian; smaller values make the kernel peaked, larger ones flat.

    Returns:
        (size, size) in float64, of sum 1.
    """
    return _normalized(torch.exp(-(_quadratic_form(size, sigma, angle) ** power) / 2))


def plateau_kernel(size: int, sigma: Range, angle: float = 0.0, power: float = 1.0) -> Tensor:
    """Return a kernel with a plateau, 1 / (1 + (xᵀΣ⁻¹x)^power).

    Args:
        size: As for :func:`gaussian_kernel`.
        sigma: As there.
        angle: As there.
        power: Larger values make the plateau flatter and its edge steeper.

    Returns:
        (size, size) in float64, of sum 1.
    """
    return _normalized(1 / (1 + _quadratic_form(size, sigma, angle) ** power))


def sinc_kernel(size: int, cutoff: float) -> Tensor:
    """Return an ideal circular low-pass filter, truncated to a square, which causes ringing (section 3.4).

    Args:
        size: Side of the kernel, odd.
        cutoff: Cutoff frequency in radians per pixel, 0 to π.

    Returns:
        (size, size) in float64, of sum 1, with negative values.
    """
    x, y = _grid(size)
    radius = torch.hypot(x, y)
    ring = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    return _normalized(torch.where(radius > 0, ring, cutoff**2 / (4 * math.pi)))


def _grid(size: int) -> tuple[Tensor, Tensor]:
    """Return the horizontal and vertical distance of each pixel from the center."""
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
