"""Transparency: no fringes, no hidden colors, constant alpha."""

import numpy as np
import pytest
import torch

from convattn.inference.upscaler import Upscaler
from convattn.models.registry import build

from .conftest import Bicubic, image_tensor, pixels


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
@pytest.mark.parametrize("channels", [2, 4])
def test_hidden_colors_do_not_show(channels: int, dtype: torch.dtype) -> None:
    upscale = Upscaler(build("esc-nano", 2), device="cpu")
    image = image_tensor(channels, 24, 20, dtype=dtype)
    image[-1, :, :10] = 0
    other = image.clone()
    other[:-1, :, :10] = image_tensor(channels - 1, 24, 10, dtype=dtype)
    assert torch.equal(upscale(image), upscale(other))


def test_no_dark_fringe_around_cut_out_objects() -> None:
    image = np.zeros((16, 16, 4), np.uint8)  # white on transparent black
    image[:, 8:] = 255
    upscaled = Upscaler(Bicubic(), device="cpu")(image)
    assert upscaled[..., :3].min() == 255
    assert set(np.unique(upscaled[:, :14, 3])) == {0}
    assert set(np.unique(upscaled[:, 18:, 3])) == {255}


@pytest.mark.parametrize("value", [0, 100, 65535])
def test_constant_alpha_stays_what_it_is(value: int) -> None:
    image = pixels(12, 12, 4, dtype=np.uint16)
    image[..., 3] = value
    upscaled = Upscaler(build("esc-nano", 2), device="cpu")(image)
    assert set(np.unique(upscaled[..., 3])) == {value}
