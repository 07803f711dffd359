import math

import numpy as np
import pytest
import torch

from convattn.evaluation.metrics import luma, psnr_y, ssim_y


def _image(height: int = 20, width: int = 17) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


def test_luma_spans_the_studio_range() -> None:
    ends = torch.tensor([[[0, 255]], [[0, 255]], [[0, 255]]], dtype=torch.uint8)
    torch.testing.assert_close(luma(ends), torch.tensor([[16.0, 235.0]], dtype=torch.float64))
    blue = torch.tensor([0, 0, 255], dtype=torch.uint8).view(3, 1, 1)
    assert luma(blue).item() == pytest.approx(16 + 24.966)


def test_psnr_of_a_known_error() -> None:
    truth = torch.full((3, 12, 12), 100, dtype=torch.uint8)
    grayscale_steps = 219 / 255  # of luma a step of grayscale
    expected = 20 * math.log10(255 / (5 * grayscale_steps))
    assert psnr_y(truth + 5, truth, shave=2) == pytest.approx(expected, abs=1e-9)
    assert psnr_y(truth, truth, shave=2) == math.inf


def test_the_border_does_not_count() -> None:
    truth = _image()
    result = truth.clone()
    result[:, :3] = 0
    result[:, :, -3:] = 0
    assert psnr_y(result, truth, shave=3) == math.inf
    assert ssim_y(result, truth, shave=3) == pytest.approx(1)
    assert psnr_y(result, truth, shave=2) < 30


def test_ssim_follows_its_definition_window_by_window() -> None:
    result, truth = _image(), _image() // 2 + 60
    x, y = (luma(image).numpy()[2:-2, 2:-2] for image in (result, truth))
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for row in range(x.shape[0] - 10):
        for column in range(x.shape[1] - 10):
            a, b = (plane[row : row + 11, column : column + 11] for plane in (x, y))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
            values.append(luminance * (2 * covariance + c2) / (var_a + var_b + c2))
    assert ssim_y(result, truth, shave=2) == pytest.approx(np.mean(values), abs=1e-10)
