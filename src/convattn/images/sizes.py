"""Requests: by which scale, or to what size, images are upscaled."""

import math
import re
from dataclasses import dataclass
from typing import Any

from convattn.errors import InputError

__all__ = ["LARGEST_SCALE", "ScaleRequest", "parse_size", "resolve"]

LARGEST_SCALE = 30
"""Beyond it a network of arbitrary scale only interpolates."""

Size = tuple[int, int]


@dataclass(frozen=True)
class ScaleRequest:
    """A request to upscale by a scale or to a size; the height stands before the width.

    Attributes:
        scale: Vertical and horizontal scale, 1 to :data:`LARGEST_SCALE`.
        size: Largest height and width of results, which keep the aspect ratio of images; None is no limit.
        exact: Whether results have exactly this size, whatever the aspect ratio of images.

    Raises:
        InputError: There is not exactly one of scale and size, one is out of range, or an exact size has
            only one side.
    """

    scale: tuple[float, float] | None = None
    size: tuple[int | None, int | None] | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        if (self.scale is None) == (self.size is None):
            raise InputError("Give a scale or a size, one of the two.")
        for factor in self.scale or ():
            if not 1 <= factor <= LARGEST_SCALE:
                raise InputError(f"A scale is a number from 1 to {LARGEST_SCALE}, not {factor:g}.")
        sides = [side for side in self.size or () if side is not None]
        if any(side < 1 for side in sides) or (self.size and not sides):
            raise InputError("A size has at least one pixel each way; give a height, a width, or both.")
        if self.exact and len(sides) < 2:
            raise InputError("An exact size is a height and a width; give both.")

    @classmethod
    def parse(
        cls,
        scale: float | str | tuple[float, float] | None,
        size: tuple[int | None, int | None] | None = None,
        exact: bool = False,
    ) -> "ScaleRequest | None":
        """Return the request that a user makes: one scale for both directions or a pair, a size, or None.

        Numbers may also be NumPy scalars or strings.

        Raises:
            InputError: A scale or a side is no number, or see :class:`ScaleRequest`.
        """
        if scale is None and size is None:
            return None
        return cls(_pair(scale), _sides(size), exact)

    @property
    def whole_scale(self) -> int | None:
        """The scale, if it is a whole number and the same for height and width."""
        if self.scale is None or self.scale[0] != self.scale[1] or self.scale[0] % 1:
            return None
        return int(self.scale[0])

    def of(self, height: int, width: int) -> Size:
        """Return height and width of the result for an image of some height and width.

        Raises:
            InputError: It would be smaller than the image, or more than :data:`LARGEST_SCALE` times as large.
        """
        if self.scale:
            return _rounded(height * self.scale[0]), _rounded(width * self.scale[1])
        size = self._fitted(height, width)
        if not all(n <= m <= LARGEST_SCALE * n for n, m in zip((height, width), size, strict=True)):
            raise InputError(
                f"An image of {width}x{height} pixels cannot become one of {size[1]}x{size[0]}: "
                f"results are 1 to {LARGEST_SCALE} times as large."
            )
        return size

    def _fitted(self, height: int, width: int) -> Size:
        most_rows, most_columns = self.size or (None, None)
        if self.exact and most_rows and most_columns:
            return most_rows, most_columns
        # Compared without division, so that the limiting side comes out exactly.
        if most_columns is None or (most_rows is not None and most_rows * width <= most_columns * height):
            return most_rows or 1, max(1, _rounded(width * (most_rows or 1) / height))
        return max(1, _rounded(height * most_columns / width)), most_columns

    def __str__(self) -> str:
        if self.scale:
            return "x".join(f"{factor:g}" for factor in dict.fromkeys(self.scale))
        height, width = self.size or (None, None)
        return f"{width or ''}x{height or ''}{' exactly' if self.exact else ''}"


def resolve(own: int | None, request: ScaleRequest | None, *, resizes: bool = False) -> ScaleRequest:
    """Return the request, or the scale of the network where nothing is requested.

    Args:
        own: The scale of the network; None where it is arbitrary.
        request: What the user requests.
        resizes: Whether results are resized, so that a network may have a larger scale than requested.

    Raises:
        InputError: There is neither, or the network cannot fulfil the request.
    """
    if request is None:
        if own is None:
            raise InputError("This model upscales by an arbitrary scale; give one, as scale=2, or a size.")
        return ScaleRequest((own, own))
    if own is None or request.scale is None:
        return request
    if request.whole_scale == own or (resizes and max(request.scale) <= own):
        return request
    most = f"at most {own}" if resizes else f"{own}"
    raise InputError(
        f"This model upscales by {own}, not by {request}; request {most}, or use a model of arbitrary scale "
        "such as esc-nano-lte."
    )


def parse_size(text: str) -> Size:
    """Return height and width of a text such as 1920x1080, in which the width is first.

    Raises:
        InputError: The text is something else.
    """
    match = re.fullmatch(r"(\d{1,9})\s*[xX×]\s*(\d{1,9})", text.strip())
    if not match:
        raise InputError(f"A size is a width and a height such as 1920x1080, not {text}.")
    return int(match[2]), int(match[1])


def _pair(scale: Any) -> tuple[float, float] | None:
    """A scale for each direction."""
    if scale is None:
        return None
    try:
        if isinstance(scale, str) or not hasattr(scale, "__len__"):
            return float(scale), float(scale)
        vertical, horizontal = scale
        return float(vertical), float(horizontal)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"A scale is a number from 1 to {LARGEST_SCALE}, or a pair of them, not {scale!r}."
        ) from error


def _sides(size: Any) -> tuple[int | None, int | None] | None:
    """A height and a width in whole pixels."""
    if size is None:
        return None
    try:
        height, width = (None if side is None else int(side) for side in size)
        return height, width
    except (TypeError, ValueError) as error:
        raise InputError(f"A size is a pair (height, width) in pixels, not {size!r}.") from error


def _rounded(x: float) -> int:
    return math.floor(x + 0.5)
