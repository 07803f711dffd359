"""Requested scales: every type of number, smaller scales, arbitrary scales."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from convattn.errors import InputError
from convattn.images.resize import resize_bicubic
from convattn.inference.upscaler import Upscaler

from .conftest import Bicubic, pixels


class ArbitraryScale(torch.nn.Module):
    scale = None

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(x, size)


def test_networks_of_arbitrary_scale() -> None:
    assert Upscaler(ArbitraryScale(), scale=3, device="cpu")(pixels(4, 5, 3)).shape == (12, 15, 3)
    with pytest.raises(InputError, match="scale=2"):
        Upscaler(ArbitraryScale(), device="cpu")


@pytest.mark.parametrize("scale", [2, 2.0, "2", np.float32(2), np.int64(2), (2, "2"), np.array([2, 2])])
def test_scales_of_every_type(scale: Any) -> None:
    assert Upscaler(Bicubic(), scale, device="cpu")(pixels(4, 5, 3)).shape == (8, 10, 3)


def test_the_default_scale_is_two() -> None:
    assert Upscaler(device="cpu")(pixels(4, 5, 3)).shape == (8, 10, 3)
    assert Upscaler("esc-nano", device="cpu")(pixels(4, 5, 3)).shape == (8, 10, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_smaller_scale_resizes_the_result(dtype: type) -> None:
    image = pixels(12, 10, 4, dtype=np.uint16)
    image = image / 65535 if dtype == np.float32 else (image >> (8 if dtype == np.uint8 else 0))
    image = image.astype(dtype)
    large = torch.from_numpy(Upscaler(Bicubic(4), device="cpu")(image)).movedim(-1, 0)
    expected = resize_bicubic(large.double(), size=(24, 20)).movedim(0, -1)
    result = Upscaler(Bicubic(4), 2, device="cpu")(image)
    assert (result.shape, result.dtype) == ((24, 20, 4), dtype)
    largest = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
    clamped = expected.clamp(0, largest).numpy()
    assert np.abs(result - clamped).max() <= (1 if largest > 1 else 1e-6)
    assert Upscaler(Bicubic(4), size=(None, 25), device="cpu")(image).shape == (30, 25, 4)


def test_a_named_model_of_a_larger_scale_is_used() -> None:
    upscale = Upscaler("esc-nano-real", 2, device="cpu")
    assert upscale.scale == 4
    assert upscale(pixels(6, 5, 3)).shape == (12, 10, 3)
    assert Upscaler("esc-nano", 2.5, device="cpu").scale == 3
