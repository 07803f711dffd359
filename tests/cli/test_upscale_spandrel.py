"""``convattn upscale`` with a network of another architecture."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from convattn.images.io import Image, read_image, write_image

pytest.importorskip("spandrel")

from spandrel.architectures.SAFMN import SAFMN


def test_a_image(upscale: Callable[..., Any]) -> None:
    torch.save({"params": SAFMN(dim=8, n_blocks=1, upscaling_factor=2).state_dict()}, "safmn.pth")
    pixels = np.random.default_rng(0).integers(0, 255, (11, 13, 4), np.uint8)
    write_image(Image(pixels), "a.png")
    assert upscale("a.png", "-o", "b.png", "--model", "safmn.pth", "--precision", "fp16") == (
        0,
        "Warning: This model cannot compute in fp16; fp32 is used.\n",
    )
    assert read_image("b.png").pixels.shape == (22, 26, 4)
