import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from convattn.images.alpha import fill_transparent, fill_transparent_lazily, limit_to_neighbors
from convattn.images.lazy_image import LazyImage

sizes = st.tuples(st.integers(1, 20), st.integers(1, 20))


def sparse_alpha(size: tuple[int, int], opaque: float = 0.1) -> Tensor:
    return torch.rand(2, 1, *size) * (torch.rand(2, 1, *size) < opaque)


@settings(max_examples=30, deadline=None)
@given(size=sizes, opaque=st.floats(0, 1))
def test_hidden_colors_leak_nowhere(size: tuple[int, int], opaque: float) -> None:
    color, alpha = torch.rand(2, 3, *size), sparse_alpha(size, opaque)
    others = torch.where(alpha > 0, color, torch.rand(2, 3, *size))
    filled = fill_transparent(color, alpha)
    assert torch.equal(filled, fill_transparent(others, alpha))
    assert torch.equal(torch.where(alpha > 0, filled, 0), torch.where(alpha > 0, color, 0))


@settings(max_examples=30)
@given(size=st.tuples(st.integers(1, 150), st.integers(1, 150)), opaque=st.sampled_from([0, 1e-4, 0.01, 0.5]))
def test_large_images_are_filled_region_by_region(size: tuple[int, int], opaque: float) -> None:
    color, alpha = torch.rand(1, 3, *size), sparse_alpha(size, opaque)[:1]

    def lazy(x: Tensor) -> LazyImage:
        return LazyImage(size, lambda region: x[:, :, region[0], region[1]])

    maps = lazy(color), lazy(alpha)
    read, filled = fill_transparent_lazily(*maps).read, torch.empty_like(color)
    for top in range(0, size[0], 40):
        rows = slice(top, min(top + 40, size[0]))
        for columns in (slice(0, size[1] // 3), slice(size[1] // 3, size[1])):
            if columns.stop > columns.start:
                filled[:, :, rows, columns] = read((rows, columns))
    torch.testing.assert_close(filled, fill_transparent(color, alpha))


@settings(max_examples=30, deadline=None)
@given(size=sizes)
def test_what_is_filled_in_lies_between_the_colors_that_are_seen(size: tuple[int, int]) -> None:
    color, alpha = torch.rand(2, 3, *size), sparse_alpha(size)
    alpha[:, :, 0, 0] = 1
    color[:, :, 1:] *= alpha[:, :, 1:] > 0
    seen = color.masked_fill(alpha == 0, torch.inf).amin((2, 3), keepdim=True)
    assert (fill_transparent(color, alpha) >= seen - 1e-6).all()


def test_one_visible_color_fills_everything() -> None:
    alpha = torch.zeros(1, 1, 13, 9)
    alpha[..., 3, 4] = 0.2
    color = torch.rand(1, 3, 13, 9)
    filled = fill_transparent(color, alpha)
    torch.testing.assert_close(filled, color[..., 3:4, 4:5].expand(-1, -1, 13, 9))


@pytest.mark.parametrize("scale", [2, 3])
def test_flat_alpha_stays_exactly_flat_and_nothing_rings(scale: int) -> None:
    alpha = torch.zeros(1, 1, 12, 12)
    alpha[..., 6:] = 1
    ringing = torch.randn(1, 1, 12 * scale, 12 * scale)
    limited = limit_to_neighbors(ringing, alpha)
    assert (limited[..., : 5 * scale] == 0).all()
    assert (limited[..., 7 * scale :] == 1).all()
    edge = slice(5 * scale, 7 * scale)
    torch.testing.assert_close(limited[..., edge], ringing[..., edge].clamp(0, 1))
