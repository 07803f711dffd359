"""Networks of every origin meet one description."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convattn.errors import InputError
from convattn.inference.model import as_model
from convattn.inference.upscaler import Upscaler
from convattn.models.registry import build

CPU = torch.device("cpu")


class Tripled(nn.Module):
    """A network that does not describe itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(self.conv(x), scale_factor=3)


def test_a_network_that_does_not_describe_itself_is_measured() -> None:
    model = as_model(Tripled(), CPU)
    assert (model.scale, model.by_layers, model.channels) == (3, None, 3)
    assert model.bytes_per_pixel >= 4 * 3 * 9
    assert Upscaler(Tripled(), device="cpu")(torch.rand(3, 5, 4)).shape == (3, 15, 12)


def test_networks_of_ours_describe_themselves() -> None:
    model = as_model(build("esc-nano", 2), CPU)
    assert (model.scale, model.window_size) == (2, 8)
    assert model.by_layers is model
    assert model.bytes_per_pixel > 0


@pytest.mark.parametrize("network", [nn.Conv2d(3, 5, 1), nn.Linear(3, 3), nn.Conv2d(3, 3, 3, stride=2)])
def test_networks_that_do_not_upscale_images(network: nn.Module) -> None:
    with pytest.raises(InputError, match="RGB images"):
        as_model(network, CPU)


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
        lambda network: network.half(),
        lambda network: network.double(),
        lambda network: torch.compile(network, backend="eager"),
    ],
)
def test_wrapped_networks(wrap: Callable[..., Any] | type) -> None:
    network, image = build("esc-nano", 2), torch.rand(3, 12, 9)
    expected = Upscaler(copy.deepcopy(network), device="cpu")(image)
    torch.testing.assert_close(Upscaler(wrap(network), device="cpu")(image), expected, rtol=0, atol=2e-3)


def test_weights_that_are_not_finite_are_refused() -> None:
    network = build("esc-nano", 2)
    nn.init.constant_(network.features.deep.bias, float("nan"))
    with pytest.raises(InputError, match=r"features\.deep\.bias"):
        Upscaler(network, device="cpu")
