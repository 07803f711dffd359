"""The relative position bias of window attention: its table, and the same for every pair of pixels.

Source: Liu et al., "Swin Transformer", ICCV 2021.
"""

import math

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from convattn.ops.exporting import is_exporting
from convattn.ops.plain import are_plain

__all__ = ["as_mask", "expand_bias", "window_size"]


def window_size(table: Tensor) -> int:
    """The side w of the windows that a table (heads, (2w − 1)²) is for."""
    return (math.isqrt(table.shape[1]) + 1) // 2


def expand_bias(table: Tensor) -> Tensor:
    """Lay the bias table out for every pair of pixels in a window.

    Args:
        table: (heads, (2w − 1)²).

    Returns:
        (heads, w², w²), query pixels before key pixels.
    """
    window = window_size(table)
    grid = table.unflatten(1, (2 * window - 1, 2 * window - 1))
    # patches[h, a, b, y', x'] = grid[h, a + y', b + x'], so query pixel y lies at a = w − 1 − y.
    patches = grid.unfold(1, window, 1).unfold(2, window, 1)
    return patches.flip(1, 2).flatten(3, 4).flatten(1, 2)


def as_mask(table: Tensor, dtype: torch.dtype) -> Tensor:
    """The expanded bias in four dimensions, as fused attention takes it.

    On a CPU it is kept for as long as the table lives and keeps its values. Values are compared, not version
    counters: those miss writes through ``.data``. On other devices the comparison would have to wait for the
    device, and expanding is quick.

    Args:
        table: (heads, (2w − 1)²).
        dtype: Of the mask.

    Returns:
        (1, heads, w², w²).
    """
    if not _can_be_kept(table):
        return expand_bias(table).to(dtype)[None]
    known, mask = _masks.get(table, (None, None))
    if known is None or mask.dtype != dtype or not torch.equal(known, table):
        with torch.inference_mode(False), torch.no_grad():
            known, mask = table.clone(), expand_bias(table).to(dtype)[None]
        if mask.nbytes <= _LARGEST_MASK_KEPT:
            _masks[table] = (known, mask)
    return mask


def _can_be_kept(table: Tensor) -> bool:
    learning = torch.is_grad_enabled() and table.requires_grad
    return are_plain([table]) and not (learning or is_exporting() or torch.compiler.is_compiling())


_masks: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
_LARGEST_MASK_KEPT = 2**25  # bytes: 4 heads of windows of 32×32 in float32 take 2**24
