"""Network interpolation blends weights."""

import pytest
import torch

from convattn.errors import InputError
from convattn.inference.interpolation import interpolate
from convattn.inference.upscaler import Upscaler
from convattn.models.registry import build


def test_weights_are_blended() -> None:
    sharp, faithful = build("esc-nano", 2), build("esc-nano", 2)
    expected = {
        key: 0.75 * tensor + 0.25 * faithful.state_dict()[key] for key, tensor in sharp.state_dict().items()
    }
    torch.testing.assert_close(interpolate(sharp, faithful, 0.25).state_dict(), expected)


@pytest.mark.parametrize(("other", "fidelity"), [(3, 0.5), (2, 1.5), (2, -0.1), (2, float("nan"))])
def test_impossible_blends(other: int, fidelity: float) -> None:
    with pytest.raises(InputError, match=r"[Ff]idelity|shapes"):
        interpolate(build("esc-nano", 2), build("esc-nano", other), fidelity)


def test_models_with_weights_of_both_kinds() -> None:
    image = torch.rand(3, 6, 5)
    for fidelity, name in enumerate(("esc-small-real", "esc-small-real-mse")):
        blended = Upscaler("esc-small-real", fidelity=fidelity, device="cpu")(image)
        torch.testing.assert_close(blended, Upscaler(name, device="cpu")(image))
    with pytest.raises(InputError, match=r"both kinds are esc-small-real, esc-real\.$"):
        Upscaler("esc-small-real-mse", fidelity=0.5, device="cpu")
