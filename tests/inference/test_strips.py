"""Strips give what the whole image gives, for every network and every size."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from convattn.images.lazy_image import LazyImage, target_of
from convattn.images.memmap import FileArray
from convattn.inference import strips
from convattn.layers import BodyConfig
from convattn.models.esc import ESC
from convattn.models.esc_lte import ESCLTE
from convattn.models.esc_real import ESCReal
from convattn.models.features import SuperResolutionNetwork
from convattn.models.registry import build
from convattn.models.upsamplers import DySample, NearestConvUpsampler
from convattn.runtimes.pretrained import from_pretrained

SMALL = BodyConfig(dim=8, large_kernel_dim=4, blocks=2, layers=2, window_size=8, heads=2, ffn_ratio=1.25)
NETWORKS = {
    "nearest skip": lambda: ESC(SMALL, scale=3),
    "norm": lambda: ESC(replace(SMALL, norm=True), scale=2),
    "factored": lambda: ESC(replace(SMALL, norm=True, factored=True), scale=2, image_skip="bicubic"),
    "real": lambda: ESCReal(SMALL),
    "real as in neosr": lambda: ESCReal(SMALL, upsampler=partial(NearestConvUpsampler, convs=(2, 2))),
    "real with DySample": lambda: ESCReal(SMALL, upsampler=DySample),
    "any scale": lambda: ESCLTE(SMALL, hidden=8),
}


def lively(network: SuperResolutionNetwork) -> SuperResolutionNetwork:
    """With weights of which none is zero, so that every part takes part."""
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def in_strips(network: SuperResolutionNetwork, x: Tensor, size: tuple[int, int], **options: Any) -> Tensor:
    """The image put together, each pixel once."""
    image = LazyImage(tuple(x.shape[2:]), lambda region: x[:, :, region[0], region[1]])
    upscaled, times = torch.zeros(1, 3, *size, dtype=x.dtype), torch.zeros(size)
    for region, pixels in strips.upscale(network, image, size, **options):
        rows, columns = target_of(region, image.size, size)
        upscaled[:, :, rows, columns] = pixels
        times[rows, columns] += 1
    assert (times == 1).all()
    return upscaled


def size_of_result(network: Any, x: Tensor, factors: tuple[float, float] = (2.3, 3.6)) -> tuple[int, ...]:
    scales = (network.scale, network.scale) if network.scale else factors
    return tuple(int(length * scale) for length, scale in zip(x.shape[2:], scales, strict=True))


sides = st.sampled_from([1, 2, 7, 8, 9, 16, 23, 31, 40])


@pytest.mark.parametrize("kind", NETWORKS)
@settings(max_examples=6)
@given(
    size=st.tuples(sides, sides), pixels=st.sampled_from([1, 8 * 40, 16 * 24, 10**4]), seed=st.integers(0, 9)
)
@torch.inference_mode()
def test_strips_are_the_whole(kind: str, size: tuple[int, int], pixels: int, seed: int) -> None:
    """In regions from one window on: strips as wide as the image, and pieces of strips."""
    torch.manual_seed(seed)
    network, x = lively(NETWORKS[kind]()).double(), torch.rand(1, 3, *size, dtype=torch.float64)
    result = size_of_result(network, x)
    whole = network(x) if network.scale else network(x, result)
    joined = in_strips(network, x, result, memory=pixels * 4 * 4 * 24, allocate=FileArray)
    torch.testing.assert_close(joined, whole, rtol=0, atol=1e-10)


@torch.inference_mode()
def test_shipped_network_in_single_precision() -> None:
    """By the compiled kernels, where there are any; the two halves of the image have other averages."""
    network, x = from_pretrained("esc-nano", 2), torch.rand(1, 3, 61, 45)
    x[..., 20:] *= 0.1
    joined = in_strips(network, x, (122, 90), memory=1)
    torch.testing.assert_close(joined, network(x), rtol=0, atol=2e-6)


@torch.inference_mode()
def test_places_far_away() -> None:
    """DySample may read anywhere."""
    network, x = lively(ESCReal(SMALL, upsampler=DySample)).double(), torch.rand(1, 3, 40, 33).double()
    network.upsampler.offset.weight.data *= 30
    assert network.upsampler.places(network.features(x)).abs().max() > 10
    torch.testing.assert_close(in_strips(network, x, (160, 132), memory=1), network(x), rtol=0, atol=1e-9)


@torch.inference_mode()
def test_half_precision_and_progress() -> None:
    network, x = lively(build("esc-nano", 2)), torch.rand(1, 3, 40, 33)
    parts: list[float] = []
    with torch.autocast("cpu", torch.bfloat16):
        joined = in_strips(network, x, (80, 66), memory=10**5, progress=parts.append)
        whole = network(x)
    assert (joined - whole).abs().mean() < 2 * (whole - network(x)).abs().mean()  # of roundings
    assert parts == sorted(parts)
    assert parts[-1] == 1
    assert len(parts) > 20


@settings(max_examples=50)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
    data=st.data(),
)
def test_arrays_in_files_are_arrays(shape: tuple[int, int, int], dtype: type, data: Any) -> None:
    kept = FileArray(shape, dtype)
    expected: np.ndarray = np.zeros(shape, dtype)
    for _ in range(3):
        starts = [data.draw(st.integers(0, length - 1)) for length in shape[:2]]
        region = tuple(
            slice(start, data.draw(st.integers(start + 1, length)))
            for start, length in zip(starts, shape, strict=False)
        )
        kept[region] = expected[region] = np.random.default_rng(0).integers(0, 200, expected[region].shape)
        assert np.array_equal(kept[region], expected[region])
    assert np.array_equal(kept.mapped(), expected)
