"""The self-ensemble is the mean of eight."""

import numpy as np
import torch

from convattn.inference.upscaler import Upscaler
from convattn.models.registry import build

from .conftest import pixels


def test_the_self_ensemble_commutes_with_flips_and_rotations() -> None:
    upscale, image = Upscaler("esc-nano", 2, device="cpu", self_ensemble=True), pixels(12, 9, 4)
    result = upscale(image).astype(int)
    assert np.abs(upscale(np.rot90(image)) - np.rot90(result)).max() <= 1
    assert np.abs(upscale(image[::-1]) - result[::-1]).max() <= 1
    assert not np.array_equal(result, Upscaler("esc-nano", 2, device="cpu")(image))


def test_the_self_ensemble_is_the_mean_of_eight() -> None:
    network, image = build("esc-nano", 2), torch.rand(3, 6, 8)
    upscale = Upscaler(network, device="cpu")
    results = []
    for turns in range(4):
        turned = image.rot90(turns, (1, 2))
        results.append(upscale(turned).rot90(-turns, (1, 2)))
        results.append(upscale(turned.flip(2)).flip(2).rot90(-turns, (1, 2)))
    expected = torch.stack(results).mean(0)
    torch.testing.assert_close(Upscaler(network, device="cpu", self_ensemble=True)(image), expected)


def test_the_self_ensemble_with_a_scale_for_each_side() -> None:
    image = pixels(6, 8, 3)
    assert Upscaler("esc-nano-lte", (1.5, 3), device="cpu", self_ensemble=True)(image).shape == (9, 24, 3)
