"""reflect_pad: torch's where that is defined, and defined everywhere."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from convattn.ops import reflect_pad


@given(st.integers(1, 12), st.integers(1, 12), st.tuples(*[st.integers(0, 11)] * 4))
def test_equals_torch_where_torch_is_defined(
    height: int, width: int, padding: tuple[int, int, int, int]
) -> None:
    x, (left, right, top, bottom) = torch.randn(1, 2, height, width), padding
    out = reflect_pad(x, left=left, right=right, top=top, bottom=bottom)
    assert out.shape == (1, 2, top + height + bottom, left + width + right)
    if max(left, right) < width and max(top, bottom) < height:
        assert torch.equal(out, F.pad(x, padding, mode="reflect"))


@pytest.mark.parametrize(
    ("size", "expected"), [(1, [0] * 6), (2, [0, 1, 0, 1, 0, 1]), (3, [0, 1, 2, 1, 0, 1])]
)
def test_goes_on_back_and_forth(size: int, expected: list[int]) -> None:
    row = torch.arange(float(size)).expand(1, 1, 1, -1)
    assert reflect_pad(row, right=6 - size).flatten().tolist() == expected
