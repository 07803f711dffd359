"""The local texture estimator against its definition, point by point."""

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from convattn.layers import BodyConfig
from convattn.layers.execution import pixel_centers
from convattn.models.esc_lte import ESCLTE
from convattn.models.lte import LocalTextureEstimator

SMALL = BodyConfig(dim=16, large_kernel_dim=4, blocks=1, layers=1, window_size=4, heads=2, ffn_ratio=1.25)


def network_of_large_weights(seed: int = 0) -> ESCLTE:
    torch.manual_seed(seed)
    network = ESCLTE(SMALL, hidden=8).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def by_definition(
    estimator: LocalTextureEstimator, features: Tensor, image: Tensor, size: tuple[int, int], cell: Tensor
) -> Tensor:
    """Of one image (3, H, W), in the paper's coordinates: the image spans [-1, 1]."""
    amplitude, frequency = estimator.amplitude(features[None])[0], estimator.frequency(features[None])[0]
    sides, result = image.shape[1:], torch.empty(3, *size, dtype=image.dtype)
    for target in itertools.product(*map(range, size)):
        point = [(2 * i + 1) / n - 1 for i, n in zip(target, size, strict=True)]
        below = [math.floor((p + 1) / 2 * n - 0.5) for p, n in zip(point, sides, strict=True)]
        color = 0
        for corner in itertools.product((0, 1), repeat=2):
            area, offset, pixel = 1.0, [], []
            for p, first, step, n in zip(point, below, corner, sides, strict=True):
                opposite = (2 * (first + 1 - step) + 1) / n - 1
                area *= abs(p - opposite) * n / 2
                inside = min(max(first + step, 0), n - 1)
                offset.append((p - ((2 * inside + 1) / n - 1)) * n)
                pixel.append(inside)
            waves = frequency[:, pixel[0], pixel[1]].reshape(-1, 2) @ image.new_tensor(offset)
            angle = math.pi * (waves + estimator.phase(cell))
            texture = amplitude[:, pixel[0], pixel[1]] * torch.cat((angle.cos(), angle.sin()))
            color = color + area * (estimator.mlp(texture) + image[:, pixel[0], pixel[1]])
        result[:, target[0], target[1]] = color
    return result


@given(
    sides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    scales=st.tuples(*[st.sampled_from([1.0, 1.4, 2.5, 3.0, 4.0, 7.3])] * 2),
)
@settings(deadline=None, max_examples=8)
def test_every_point_is_what_the_definition_says(sides: tuple[int, int], scales: tuple[float, float]) -> None:
    network = network_of_large_weights().double()
    x = torch.rand(2, 3, *sides, dtype=torch.float64)
    size = round(scales[0] * sides[0]), round(scales[1] * sides[1])
    cell = torch.tensor([2 * n / m for n, m in zip(sides, size, strict=True)], dtype=torch.float64)
    with torch.no_grad():
        result = network(x, size)
        features = network.features(2 * x - 1)
        for one, its_features, image in zip(result, features, 2 * x - 1, strict=True):
            expected = by_definition(
                network.estimator,
                its_features,
                image,
                size,
                cell.clamp(min=2 / network.largest_trained_scale),
            )
            torch.testing.assert_close(one, (expected + 1) / 2, rtol=1e-6, atol=1e-8)


def test_gradients_in_chunks_are_those_of_the_whole() -> None:
    network, x = network_of_large_weights().double(), torch.rand(1, 3, 3, 4, dtype=torch.float64)
    gradients = []
    for points_at_once in (10, 10**6):
        network.zero_grad(set_to_none=True)
        network(x, (7, 10), points_at_once=points_at_once).square().sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    torch.testing.assert_close(*gradients)
    estimator = network.estimator
    rows, columns = torch.rand(2, 2, 5, dtype=torch.float64) * 3
    cell = torch.full((2, 2), 0.4, dtype=torch.float64)
    features, image = (torch.rand(2, n, 3, 3, dtype=torch.float64, requires_grad=True) for n in (16, 3))
    assert torch.autograd.gradcheck(
        lambda features, image: estimator(estimator.estimate(features, image), rows, columns, cell),
        (features, image),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("way", ["autocast", "cast"])
def test_half_precision_does_not_move_points(dtype: torch.dtype, way: str) -> None:
    """Positions rounded to half precision would be whole pixels off this far from the corner."""
    network, x = network_of_large_weights(), torch.rand(1, 3, 2, 700)
    half = copy.deepcopy(network).to(dtype) if way == "cast" else network
    size = (3, 2 * 700 + 1)
    with torch.no_grad():
        features = network.features(2 * x - 1).to(dtype).float()
        texture = network.estimator.estimate(features, 2 * x - 1)
        rows, columns = pixel_centers(2, size[0]), pixel_centers(700, size[1])
        cell = torch.tensor([[2 / size[0], 700 / size[1]]])
        expected = network.render(texture, rows, columns, cell)
        with torch.autocast("cpu", dtype, enabled=way == "autocast"):
            given_features = features.to(dtype) if way == "cast" else features
            texture = half.estimator.estimate(given_features, (2 * x - 1).to(given_features.dtype))
            result = half.render(texture, rows, columns, cell).float()
    error = (result - expected).abs()
    scale = expected.std()
    assert error.mean() < 0.02 * scale
    # No worse at the far end than at the near one.
    assert error[..., -400:].mean() < 2 * error[..., :400].mean() + 1e-3 * scale


def test_a_long_side_keeps_its_positions() -> None:
    centers = pixel_centers(10_000, 27_000)
    assert centers[0] == 5 / 27
    torch.testing.assert_close(centers[-1].item(), 10_000 - 5 / 27, rtol=0, atol=1e-9)
    torch.testing.assert_close(pixel_centers(7, 7), torch.arange(7, dtype=torch.float64) + 0.5)


@pytest.mark.parametrize("side", [1, 2])
def test_tiny_images_and_large_scales(side: int) -> None:
    network, x = network_of_large_weights(), torch.rand(1, 3, side, side)
    with torch.no_grad():
        assert network(x, (30 * side, 30 * side)).isfinite().all()
        assert network(x, (side, 30 * side)).shape == (1, 3, side, 30 * side)
