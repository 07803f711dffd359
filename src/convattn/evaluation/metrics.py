"""The metrics of the super-resolution benchmarks: PSNR and SSIM on luma."""

import functools

import torch
from torch import Tensor

__all__ = ["luma", "psnr_y", "ssim_y"]


def luma(x: Tensor) -> Tensor:
    """Return Y of 8-bit RGB images as BT.601 defines it for studio range, not rounded.

    Args:
        x: ``uint8`` images (..., 3, H, W).

    Returns:
        float64 (..., H, W) between 16 and 235.
    """
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64) / 255
    return torch.einsum("...chw,c->...hw", x.cpu().double(), weights) + 16


def psnr_y(result: Tensor, truth: Tensor, *, shave: int) -> float:
    """Return the peak signal-to-noise ratio of luma in dB, infinite where the images are equal.

    Args:
        result: ``uint8`` image (3, H, W).
        truth: ``uint8`` image of the same shape.
        shave: Width in pixels of the border that does not count, by convention the scale.
    """
    error = (_shaved_luma(result, shave) - _shaved_luma(truth, shave)).square().mean()
    return (10 * torch.log10(255**2 / error)).item()


def ssim_y(result: Tensor, truth: Tensor, *, shave: int) -> float:
    """Return the mean structural similarity of luma (Wang et al., IEEE TIP 2004, eq. 13).

    The window is an 11x11 Gaussian with standard deviation 1.5 and lies completely inside the image.

    Args:
        result: ``uint8`` image (3, H, W); the shaved sides must be at least 11.
        truth: ``uint8`` image of the same shape.
        shave: Width in pixels of the border that does not count, by convention the scale.
    """
    x, y = _shaved_luma(result, shave), _shaved_luma(truth, shave)
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = _gaussian(torch.stack([x, y, x * x, y * y, x * y]))
    variance_x, variance_y = mean_xx - mean_x**2, mean_yy - mean_y**2
    covariance = mean_xy - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return similarity.mean().item()


def _shaved_luma(x: Tensor, shave: int) -> Tensor:
    height, width = x.shape[-2:]
    return luma(x[..., shave : height - shave, shave : width - shave])


def _gaussian(x: Tensor) -> Tensor:
    """Blur planes (N, H, W) to (N, H-10, W-10)."""
    window = torch.exp(-0.5 * (torch.arange(-5, 6, dtype=x.dtype) / 1.5) ** 2)
    window /= window.sum()
    for dim in (1, 2):
        length = x.shape[dim] - 10
        parts = (x.narrow(dim, offset, length) * weight for offset, weight in enumerate(window.tolist()))
        x = functools.reduce(Tensor.add_, parts)
    return x
