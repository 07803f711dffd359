import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from convattn.evaluation.protocol import downscale
from convattn.images.io import read_rgb
from convattn.images.resize import resize_bicubic


def _keys(t: float) -> float:
    t = abs(t)
    if t <= 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t <= 2 else 0.0


def _resize_row(row: np.ndarray, factor: float, length: int) -> np.ndarray:
    """MATLAB's definition, one output sample after the other."""
    shrink = min(factor, 1.0)
    result = np.zeros(length)
    for i in range(length):
        center = (i + 0.5) / factor - 0.5
        reach = range(math.floor(center - 2 / shrink) - 1, math.ceil(center + 2 / shrink) + 2)
        weights = [_keys(shrink * (center - j)) for j in reach]
        mirrored = [j % (2 * len(row)) for j in reach]
        samples = [row[min(j, 2 * len(row) - 1 - j)] for j in mirrored]
        result[i] = np.dot(weights, samples) / sum(weights)
    return result


def _resize(image: np.ndarray, factor: float) -> np.ndarray:
    height, width = (math.ceil(factor * side) for side in image.shape)
    columns = np.stack([_resize_row(column, factor, height) for column in image.T], axis=1)
    return np.stack([_resize_row(row, factor, width) for row in columns])


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from([1 / 2, 1 / 3, 1 / 4, 0.37, 0.9, 1, 1.5, 2, 3, 4]),
    st.integers(0, 9999),
)
def test_follows_the_definition(height: int, width: int, factor: float, seed: int) -> None:
    image = torch.rand(height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    expected = torch.from_numpy(_resize(image.numpy(), factor))
    torch.testing.assert_close(resize_bicubic(image, factor), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_agrees_with_torch_on_mirrored_images(scale: int) -> None:
    x = torch.rand(2, 3, 24, 36, dtype=torch.float64)
    pad = 4 * scale
    rows = torch.cat([x[..., :pad, :].flip(-2), x, x[..., -pad:, :].flip(-2)], -2)
    padded = torch.cat([rows[..., :pad].flip(-1), rows, rows[..., -pad:].flip(-1)], -1)
    expected = F.interpolate(padded, scale_factor=1 / scale, mode="bicubic", antialias=True)
    expected = expected[..., 4:-4, 4:-4]
    torch.testing.assert_close(resize_bicubic(x, 1 / scale), expected, rtol=0, atol=1e-12)


def test_is_differentiable_and_leaves_its_input_alone() -> None:
    x = torch.rand(1, 2, 6, 9, dtype=torch.float64, requires_grad=True)
    before = x.detach().clone()
    assert torch.autograd.gradcheck(lambda x: resize_bicubic(x, 1 / 3), (x,))
    assert torch.equal(x, before)


def test_size_in_place_of_scale() -> None:
    x = torch.rand(3, 12, 18)
    assert torch.equal(resize_bicubic(x, size=(6, 9)), resize_bicubic(x, 0.5))
    assert resize_bicubic(x, size=(5, 40)).shape == (3, 5, 40)
    with pytest.raises(ValueError, match="either"):
        resize_bicubic(x)
    with pytest.raises(ValueError, match="0x3"):
        resize_bicubic(x, size=(0, 3))


def test_types_and_layouts() -> None:
    x = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert resize_bicubic(x, 2).dtype == torch.uint8
    assert torch.equal(resize_bicubic(torch.full_like(x, 255), 0.5), torch.full((2, 3, 4, 4), 255).byte())
    half = resize_bicubic(x.bfloat16() / 255, 0.5)
    assert half.dtype == torch.bfloat16
    channels_last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(resize_bicubic(channels_last, 0.5), resize_bicubic(x, 0.5))
    assert torch.equal(resize_bicubic(x[1], 0.5), resize_bicubic(x, 0.5)[1])


@pytest.mark.parametrize(("scale", "pipeline"), [(2, "uint8"), (3, "uint8"), (4, "uint8"), (8, "double")])
def test_makes_the_published_low_resolution_files(shared_data: Path, scale: int, pipeline: str) -> None:
    for path in sorted((shared_data / "sr_bench" / "Set5" / "HR").iterdir()):
        high = read_rgb(path)
        high = high[:, : high.shape[1] // scale * scale, : high.shape[2] // scale * scale]
        published = path.parents[1] / "LR_bicubic" / f"X{scale}" / f"{path.stem}x{scale}.png"
        assert torch.equal(downscale(high, scale, pipeline), read_rgb(published)), path.name  # type: ignore[arg-type]
