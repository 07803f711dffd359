"""By how much images are upscaled."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convattn.errors import InputError
from convattn.images.sizes import LARGEST_SCALE, ScaleRequest, parse_size, resolve

SIDES = st.integers(1, 5000)


@given(SIDES, SIDES, st.floats(1, LARGEST_SCALE), st.floats(1, LARGEST_SCALE))
def test_a_scale_rounds_each_side_to_the_next_pixel(
    height: int, width: int, down: float, across: float
) -> None:
    size = ScaleRequest((down, across)).of(height, width)
    assert abs(size[0] - down * height) <= 0.5
    assert abs(size[1] - across * width) <= 0.5


@given(SIDES, SIDES, st.floats(1, LARGEST_SCALE))
def test_a_size_is_fitted_into(height: int, width: int, factor: float) -> None:
    most = math.ceil(height * factor), math.ceil(width * LARGEST_SCALE)
    try:
        size = ScaleRequest(size=most).of(height, width)
    except InputError:
        # Rounded up, a side of one pixel more may be more than the largest scale makes.
        assert most[0] / height > LARGEST_SCALE - 1 or most[0] / height * width > LARGEST_SCALE * width - 1
        return
    assert size[0] == most[0] or size[1] == most[1]
    assert size[0] <= most[0]
    assert size[1] <= most[1]
    # No more than half a pixel away from the shape of the image.
    assert abs(size[0] * width - size[1] * height) <= max(height, width) / 2 + 1e-6


def test_one_side_settles_the_other() -> None:
    assert ScaleRequest(size=(None, 1920)).of(480, 640) == (1440, 1920)
    assert ScaleRequest(size=(1080, None)).of(480, 640) == (1080, 1440)
    assert ScaleRequest(size=(1080, 1920)).of(480, 640) == (1080, 1440)
    assert ScaleRequest(size=(1080, 1920)).of(480, 1000) == (922, 1920)


def test_an_exact_size() -> None:
    assert ScaleRequest(size=(1080, 1920), exact=True).of(480, 640) == (1080, 1920)


@pytest.mark.parametrize("scale", [0, -2, math.nan, math.inf, 0.5, 30.01])
def test_scales_out_of_range_are_refused(scale: float) -> None:
    with pytest.raises(InputError, match="from 1 to 30"):
        ScaleRequest((scale, scale))


@pytest.mark.parametrize("size", [(0, 10), (10, -1), (None, None)])
def test_sizes_without_pixels_are_refused(size: tuple[None, None] | tuple[int, int]) -> None:
    with pytest.raises(InputError, match="at least one pixel"):
        ScaleRequest(size=size)


def test_a_request_is_a_scale_or_a_size() -> None:
    for request in ({}, {"scale": (2, 2), "size": (10, 10)}, {"size": (None, 9), "exact": True}):
        with pytest.raises(InputError):
            ScaleRequest(**request)


def test_images_become_neither_smaller_nor_immense() -> None:
    with pytest.raises(InputError, match="640x480 pixels cannot become one of 320x240"):
        ScaleRequest(size=(None, 320)).of(480, 640)
    with pytest.raises(InputError, match="1 to 30 times"):
        ScaleRequest(size=(None, 2000)).of(48, 64)


def test_sizes_are_written_width_first() -> None:
    assert parse_size("1920x1080") == parse_size(" 1920 X 1080 ") == (1080, 1920)
    for text in ("", "1920", "1920x", "-1x3", "1920x1080x3", "axb", "1e3x2"):
        with pytest.raises(InputError, match="such as 1920x1080"):
            parse_size(text)


def test_whole_scales() -> None:
    assert ScaleRequest((3.0, 3.0)).whole_scale == 3
    assert ScaleRequest((2.5, 2.5)).whole_scale is None
    assert ScaleRequest((2, 3)).whole_scale is None
    assert ScaleRequest(size=(10, 10)).whole_scale is None


@pytest.mark.parametrize("scale", [2, "2", 2.0, (2, "2"), [2, 2]])
def test_requests_take_numbers_of_every_type(scale: float | list[int] | str | tuple[Any, ...]) -> None:
    assert ScaleRequest.parse(scale) == ScaleRequest((2.0, 2.0))


@pytest.mark.parametrize("scale", ["two", (1, 2, 3), object()])
def test_what_is_no_scale_is_refused(scale: Any) -> None:
    with pytest.raises(InputError, match="number from 1 to 30"):
        ScaleRequest.parse(scale)


def test_what_is_no_size_is_refused() -> None:
    for size in (640, ("a", "b"), (1, 2, 3)):
        with pytest.raises(InputError, match="pair"):
            ScaleRequest.parse(None, size)


def test_requests_meet_the_scale_of_a_network() -> None:
    two, three = ScaleRequest((2, 2)), ScaleRequest((3, 3))
    assert resolve(2, None) == resolve(2, two) == resolve(None, two) == two
    assert resolve(3, two, resizes=True) == two
    for own, request, resizes in ((None, None, True), (2, three, True), (3, two, False)):
        with pytest.raises(InputError):
            resolve(own, request, resizes=resizes)
