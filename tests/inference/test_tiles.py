import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convattn.inference.tiles import SharedAverages, cut
from convattn.models.networks import build


@settings(max_examples=100, deadline=None)
@given(
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    side=st.integers(1, 200),
    step=st.integers(1, 16),
    windows=st.integers(0, 2),
)
def test_cores_cover_each_pixel_once_and_see_enough(size, side, step, windows):
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
def test_tiles_put_together_are_the_image(size, side, scale):
    image = torch.rand(2, 3, *size)
    whole = image.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    joined = torch.full_like(whole, torch.nan)
    for tile in cut(*size, side=side, context=4, step=2):
        rows, columns = tile.seen
        seen = image[:, :, rows, columns].repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        tile.put(seen, joined, scale)
    assert torch.equal(joined, whole)


def lively(network):
    """Dynamic kernels start at zero; give them something to say."""
    for name, parameter in network.named_parameters():
        if "predictor" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return network.eval()


@pytest.mark.parametrize("name", ["esc-nano", "esc-fp"])
@torch.inference_mode()
def test_averages_of_the_whole_image_change_nothing(name):
    network, x = lively(build(name, 2)), torch.rand(2, 3, 40, 40)
    averages = SharedAverages(network)
    assert averages
    whole = network(x)
    with averages.taken():
        torch.testing.assert_close(network(x), whole)
    with averages.used():
        torch.testing.assert_close(network(x), whole)
        assert not torch.allclose(network(x[..., :32]), whole[..., :64])
    assert torch.equal(network(x), whole)


@torch.inference_mode()
def test_shared_averages_bring_tiles_closer_to_the_whole():
    network, x = lively(build("esc-nano", 2)), torch.rand(1, 3, 96, 96)
    x[..., 48:] *= 0.2  # tiles that differ, so that their own averages mislead
    whole = network(x)

    def error(averages):
        joined = torch.empty_like(whole)
        with averages.used():
            for tile in cut(96, 96, side=64, context=16, step=8):
                rows, columns = tile.seen
                tile.put(network(x[:, :, rows, columns]), joined, 2)
        return (joined - whole).square().mean().sqrt()

    averages = SharedAverages(network)
    with averages.taken():
        for tile in cut(96, 96, side=64, context=16, step=8):
            rows, columns = tile.core
            network(x[:, :, rows, columns])
    assert error(averages) < error(SharedAverages(network)) / 3


def test_networks_without_dynamic_kernels_have_nothing_to_share():
    averages = SharedAverages(torch.nn.Conv2d(3, 3, 3))
    assert not averages
    with averages.used():
        pass
