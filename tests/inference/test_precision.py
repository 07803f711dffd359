"""Half precision: close, and computed again where it overflows."""

import numpy as np
import pytest
import torch
from torch import Tensor

from convattn.inference.upscaler import Upscaler
from convattn.models.registry import build

from .conftest import Bicubic, image_tensor, pixels


def test_half_precision_that_overflows_is_computed_again() -> None:
    class Overflowing(Bicubic):
        def forward(self, x: Tensor) -> Tensor:
            upscaled = super().forward(x)
            return upscaled / 0 if torch.is_autocast_enabled("cpu") else upscaled

    image = pixels(9, 9, 3)
    halves, singles = (Upscaler(n, device="cpu", precision="bf16") for n in (Overflowing(), Bicubic()))
    assert np.array_equal(halves(image), singles(image))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_close(precision: str) -> None:
    network, image = build("esc-nano", 2), image_tensor(3, 24, 24, dtype=torch.float32)
    exact = Upscaler(network, device="cpu", precision="fp32")(image)
    assert (Upscaler(network, device="cpu", precision=precision)(image) - exact).abs().max() < 0.02


@pytest.mark.parametrize("tile", [None, 96])
def test_a_network_that_overflows_half_precision_gives_what_single_precision_gives(tile: int | None) -> None:
    network = build("esc-nano", 2).eval()
    network.features.blocks[0].norm_out.weight.data *= 1e20
    network.features.blocks[0].conv_out.weight.data *= 1e-20
    image = pixels(130, 100, 3)
    halves, singles = (Upscaler(network, device="cpu", precision=p, tile=tile) for p in ("fp16", "fp32"))
    assert np.array_equal(halves(image), singles(image))
