from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from convattn.images.tiling import cut
from convattn.inference.tiles import shared_averages, with_averages
from convattn.models.features import SuperResolutionNetwork
from convattn.models.registry import build


@settings(max_examples=100, deadline=None)
@given(
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    side=st.integers(1, 200),
    step=st.integers(1, 16),
    windows=st.integers(0, 2),
)
def test_cores_cover_each_pixel_once_and_see_enough(
    size: tuple[int, int], side: int, step: int, windows: int
) -> None:
    context = windows * step
    covered = torch.zeros(size, dtype=torch.int)
    for tile in cut(*size, side=side, context=context, step=step):
        covered[tile.core] += 1
        for core, seen, length in zip(tile.core, tile.seen, size, strict=True):
            assert core.start % step == seen.start % step == 0
            assert seen.start == max(core.start - context, 0)
            assert seen.stop == min(core.stop + context, length)
            assert seen.stop - seen.start <= max(side, step + 2 * context)
    assert (covered == 1).all()


@settings(max_examples=30, deadline=None)
@given(
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)), side=st.integers(1, 50), scale=st.integers(1, 4)
)
def test_tiles_put_together_are_the_image(size: tuple[int, int], side: int, scale: int) -> None:
    image = torch.rand(2, 3, *size)
    whole = image.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    joined = torch.full_like(whole, torch.nan)
    for tile in cut(*size, side=side, context=4, step=2):
        rows, columns = tile.seen
        seen = image[:, :, rows, columns].repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        tile.put(seen, joined, scale)
    assert torch.equal(joined, whole)


def lively(network: SuperResolutionNetwork) -> SuperResolutionNetwork:
    """Dynamic kernels start at zero; give them something to say."""
    for name, parameter in network.named_parameters():
        if "predictor" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return network.eval()


@pytest.mark.parametrize("name", ["esc-nano", "esc-fp"])
@torch.inference_mode()
def test_averages_of_the_whole_image_change_nothing(name: str) -> None:
    network, x = lively(build(name, 2)), torch.rand(2, 3, 40, 40)
    averages, whole = shared_averages(network, [x]), network(x)
    torch.testing.assert_close(with_averages(network, x, averages), whole)
    part = with_averages(network, x[..., :32], averages)
    assert not torch.allclose(part, network(x[..., :32]))
    assert torch.equal(network(x), whole)


@torch.inference_mode()
def test_averages_weigh_parts_by_their_pixels() -> None:
    network, x = lively(build("esc-nano", 2)), torch.rand(1, 3, 24, 24)
    parts = [x[..., :8], x[..., 8:]]
    first, second = (shared_averages(network, [part]) for part in parts)
    expected = [(8 * a + 16 * b) / 24 for a, b in zip(first, second, strict=True)]
    torch.testing.assert_close(shared_averages(network, parts), expected)


@torch.inference_mode()
def test_shared_averages_bring_tiles_closer_to_the_whole() -> None:
    network, x = lively(build("esc-nano", 2)), torch.rand(1, 3, 96, 96)
    x[..., 48:] *= 0.2  # tiles that differ, so that averages of their own mislead
    tiles, whole = cut(96, 96, side=64, context=16, step=8), network(x)

    def error(upscale: Callable[..., Tensor]) -> Tensor:
        joined = torch.empty_like(whole)
        for tile in tiles:
            rows, columns = tile.seen
            tile.put(upscale(x[:, :, rows, columns]), joined, 2)
        return (joined - whole).square().mean().sqrt()

    averages = shared_averages(network, (x[:, :, rows, columns] for rows, columns in (t.core for t in tiles)))
    assert error(lambda part: with_averages(network, part, averages)) < error(network) / 3
