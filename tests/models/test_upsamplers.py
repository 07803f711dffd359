"""The upsamplers of ESC-Real."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convattn.models.upsamplers import DySample, NearestConvUpsampler


def _read_bilinear(feature: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """One value of a (H, W) feature at a place in pixels, whose border values go on outside."""
    height, width = feature.shape
    row, column = row.clamp(0, height - 1), column.clamp(0, width - 1)
    top, left = int(row), int(column)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = row - top, column - left
    above = feature[top, left] * (1 - across) + feature[top, right] * across
    below = feature[bottom, left] * (1 - across) + feature[bottom, right] * across
    return above * (1 - down) + below * down


@pytest.mark.parametrize("scale", [2, 3])
def test_dysample_reads_where_its_offsets_say(scale: int) -> None:
    upsampler = DySample(8, scale, groups=2).double()
    for parameter in upsampler.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    offset = (upsampler.offset(x) * upsampler.scope(x).sigmoid() * 0.5).reshape(2, 2, 2, scale, scale, 3, 4)
    read = x.new_empty(2, 8, 3 * scale, 4 * scale)
    for n, c, i, j in torch.cartesian_prod(*map(torch.arange, read.shape)).tolist():
        own = offset[n, :, c // 4, i % scale, j % scale, i // scale, j // scale]
        row, column = (i + 0.5) / scale - 0.5 + own[1], (j + 0.5) / scale - 0.5 + own[0]
        read[n, c, i, j] = _read_bilinear(x[n, c], row, column)
    # The places of the output pixels are kept in float32.
    torch.testing.assert_close(upsampler(x), upsampler.project(read), atol=1e-6, rtol=1e-5)


def test_dysample_starts_as_bilinear_request() -> None:
    upsampler = DySample(8, 4)
    torch.nn.init.zeros_(upsampler.offset.weight)
    torch.nn.init.zeros_(upsampler.offset.bias)
    x = torch.randn(1, 8, 5, 6)
    expected = upsampler.project(F.interpolate(x, scale_factor=4, mode="bilinear"))
    torch.testing.assert_close(upsampler(x), expected)


def test_dysample_in_half_precision_tells_far_pixels_apart() -> None:
    upsampler = DySample(8, 2)
    x = torch.rand(1, 8, 1, 3000)
    expected = upsampler(x)
    assert (upsampler.bfloat16()(x.bfloat16()).float() - expected).abs().max() < 0.05


@pytest.mark.parametrize(
    "upsampler",
    [
        DySample(8, 2),
        DySample(8, 3),
        NearestConvUpsampler(8, (2, 2)),
        NearestConvUpsampler(8, width=4),
    ],
)
def test_output_size_and_gradients(upsampler: nn.Module) -> None:
    x = torch.randn(2, 8, 1, 3, requires_grad=True)
    y = upsampler(x)
    assert y.shape == (2, 3, upsampler.scale, 3 * upsampler.scale)
    y.square().sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
