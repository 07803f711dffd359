"""Reflection of feature maps beyond their borders, at any size."""

import torch
from torch import Tensor

from convattn.ops import checks
from convattn.ops.exporting import is_exporting

__all__ = ["fold_reflection", "reflect_pad"]


def reflect_pad(x: Tensor, *, left: int = 0, right: int = 0, top: int = 0, bottom: int = 0) -> Tensor:
    """Continue a map by reflection at its border pixels.

    Equal to ``torch.nn.functional.pad(mode="reflect")`` where that is defined. Where a map is too small for
    that, the reflection goes on back and forth between its borders, and a map of one pixel is repeated.

    Args:
        x: (N, C, H, W).
        left: Pixels to add on this side, and so on.
        right: As above.
        top: As above.
        bottom: As above.

    Returns:
        (N, C, top + H + bottom, left + W + right); ``x`` itself where nothing is added.

    Raises:
        ValueError: A count is negative, or there is no pixel to reflect.
    """
    checks.reflect_pad(x, (top, bottom), (left, right))
    for axis, before, after in ((2, top, bottom), (3, left, right)):
        if is_exporting() or before or after:  # an exported graph must not depend on the traced size
            x = x.index_select(axis, _reflected(x.shape[axis], before, after, x.device))
    return x


def fold_reflection(x: Tensor, height: int, width: int) -> Tensor:
    """Add each pixel that :func:`reflect_pad` made on the right and below to the one it was made from.

    Args:
        x: (N, C, H, W), for example the gradient of a padded map.
        height: Rows before padding.
        width: Columns before padding.

    Returns:
        (N, C, height, width): what the transposed linear map of the padding gives.
    """
    for axis, size in ((2, height), (3, width)):
        inside, outside = x.tensor_split((size,), axis)
        source = _reflected(size, 0, outside.shape[axis], x.device)[size:]
        x = inside.index_add(axis, source, outside) if len(source) else inside
    return x


def _reflected(size: int, before: int, after: int, device: torch.device) -> Tensor:
    """For size 3, before 2 and after 4: 2, 1, | 0, 1, 2, | 1, 0, 1, 2."""
    last = torch.arange(size, device=device)[-1:]  # in a tensor, as exporters want it
    period = (2 * last).clamp(min=1)
    index = torch.arange(-before, size + after, device=device) % period
    return torch.minimum(index, period - index)
