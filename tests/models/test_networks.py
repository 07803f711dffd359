"""The networks: their published sizes, any input, one function in training and evaluation."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convattn.errors import InputError
from convattn.layers import BodyConfig
from convattn.models.esc import ESC
from convattn.models.esc_lte import ESCLTE
from convattn.models.registry import NETWORKS, REAL_NETWORKS, build

SMALL = BodyConfig(dim=16, large_kernel_dim=4, blocks=1, layers=2, window_size=4, heads=2, ffn_ratio=1.25)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("esc", (946_728, 955_383, 967_500)),
        ("esc-light", (603_600, 612_255, 624_372)),
        ("esc-fp", (523_675, 530_170, 539_263)),
        ("esc-xl", (12_455_916, 12_481_851, 12_518_160)),
    ],
)
def test_published_parameter_counts(name: str, parameters: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        assert tuple(count(build(name, scale)) for scale in (2, 3, 4)) == parameters


def test_published_parameter_counts_of_the_other_two() -> None:
    assert count(build("esc-real")) == 2_265_307
    lte = build("esc-lte")
    assert (count(lte), count(lte.features)) == (1_433_631, 939_804)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_nano_is_well_under_a_megabyte(scale: int) -> None:
    assert 4 * count(build("esc-nano", scale)) < 500_000
    assert 4 * count(build("esc-nano-real")) < 500_000


def test_the_small_real_world_network_is_between_nano_and_light() -> None:
    small = build("esc-small-real", 4)
    assert count(small) == 537_948
    assert small(torch.rand(1, 3, 5, 7)).shape == (1, 3, 20, 28)


def disturb(network: nn.Module) -> nn.Module:
    """Give every parameter a part in the result, those that start at zero too."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network


def small(kind: str) -> nn.Module:
    network = {
        "esc": lambda: ESC(SMALL, scale=3),
        "fp": lambda: ESC(replace(SMALL, factored=True, norm=True), scale=2, image_skip="bicubic"),
    }[kind]()
    return disturb(network)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(["esc", "fp"]), st.integers(1, 3), st.integers(1, 19), st.integers(1, 19))
def test_any_size_any_batch(kind: str, images: int, height: int, width: int) -> None:
    network, x = small(kind), torch.rand(images, 3, height, width)
    before = x.clone()
    trained = network.train()(x)
    with torch.inference_mode():
        evaluated = network.eval()(x)
    assert trained.shape == (images, 3, height * network.scale, width * network.scale)
    torch.testing.assert_close(evaluated, trained.detach(), rtol=1e-4, atol=1e-4)
    assert torch.equal(x, before)
    # An image does not know what else is in its batch.
    torch.testing.assert_close(network(x[:1]), trained[:1], rtol=1e-4, atol=1e-4)


def test_published_networks_run_on_a_batch_of_odd_size() -> None:
    for name in ("esc-light", "esc-fp"):
        network = build(name, 2).eval()
        with torch.inference_mode():
            assert network(torch.rand(2, 3, 5, 33)).shape == (2, 3, 10, 66)
    with torch.inference_mode():
        for name in REAL_NETWORKS:
            assert build(name).eval()(torch.rand(1, 3, 1, 2)).shape == (1, 3, 4, 8)


def test_every_parameter_learns() -> None:
    for kind in ("esc", "fp"):
        network = small(kind)
        network(torch.rand(2, 3, 7, 6)).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_without_a_residual_the_image_is_repeated() -> None:
    network, x = build("esc-nano", 3), torch.rand(1, 3, 4, 5)
    nn.init.zeros_(network.to_image.weight)
    nn.init.zeros_(network.to_image.bias)
    torch.testing.assert_close(network(x), x.repeat_interleave(3, 2).repeat_interleave(3, 3))


def test_without_a_residual_any_scale_interpolates() -> None:
    network, x = ESCLTE(SMALL, hidden=8), torch.rand(2, 3, 4, 6)
    nn.init.zeros_(network.estimator.mlp[-1].weight)
    nn.init.zeros_(network.estimator.mlp[-1].bias)
    expected = F.interpolate(x, size=(7, 15), mode="bilinear", align_corners=False)
    torch.testing.assert_close(network(x, (7, 15)), expected)


def test_any_scale_in_chunks_equals_at_once() -> None:
    network, x = disturb(ESCLTE(SMALL, hidden=8)), torch.rand(2, 3, 5, 4)
    torch.testing.assert_close(network(x, (9, 13), points_at_once=10), network(x, (9, 13)))


def test_unknown_network_names_the_known() -> None:
    with pytest.raises(InputError, match="esc-nano"):
        build("esrgan", 4)


@pytest.mark.parametrize(("name", "scale"), [("esc-real", 2), ("esc", None), ("esc", 0)])
def test_impossible_scale(name: str, scale: int | None) -> None:
    with pytest.raises(InputError, match="esc"):
        build(name, scale)


def test_every_name_builds() -> None:
    with torch.device("meta"):
        for name in NETWORKS:
            assert build(name, 2).scale == 2
        for name in REAL_NETWORKS:
            assert build(name).scale == build(name, 4).scale == 4
