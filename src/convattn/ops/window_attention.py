"""Self-attention inside square windows with a learned relative position bias.

Source: Lee, Yun and Ro, "Emulating Self-attention with Convolution for Efficient Image Super-Resolution",
ICCV 2025; no window is shifted and nothing is masked. The bias is that of Liu et al., "Swin Transformer",
ICCV 2021.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._triton import has_triton
from torch.utils.weak import WeakTensorKeyDictionary

from convattn.ops import cpu, triton
from convattn.ops.convolution import convolution
from convattn.ops.exporting import is_exporting
from convattn.ops.norm import Norm
from convattn.ops.padding import reflect_pad

__all__ = ["BACKENDS", "expand_bias", "window_attention", "window_self_attention"]


def window_attention(
    q: Tensor, k: Tensor, v: Tensor, relative_position_bias: Tensor, *, backend: str | None = None
) -> Tensor:
    """Attend within each window: ``softmax(q kᵀ / √d + bias) v``.

    Windows start at the upper left corner. A map that is no multiple of the window is continued to the right
    and below by reflection, as published; where it is too small for that (padding of its own size or more)
    the reflection goes on back and forth, and a map of one pixel is repeated.

    Args:
        q: Queries, (N, heads · d, H, W), any size from 1×1; a head's channels lie together.
        k: Keys, shaped like ``q``.
        v: Values, shaped like ``q``.
        relative_position_bias: (heads, (2w − 1)²) for windows of w×w pixels; the bias of key pixel (y', x')
            for query pixel (y, x) lies in column (y' − y + w − 1)(2w − 1) + (x' − x + w − 1).
        backend: A name in :data:`BACKENDS`; chosen by the operator where it is None.

    Returns:
        A tensor shaped like ``q``.

    Raises:
        ValueError: The shapes do not fit together or the backend is unknown.
    """
    _check(q, k, v, relative_position_bias)
    name = backend or _choose(q, k, v, relative_position_bias)
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; choose from {', '.join(BACKENDS)}")
    return BACKENDS[name](q, k, v, relative_position_bias)


def window_self_attention(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    relative_position_bias: Tensor,
    *,
    norm: Norm | None = None,
    backend: str | None = None,
) -> Tensor:
    """Attend within each window to the map itself: ``q, k, v = weight * norm(x) + bias``.

    Args:
        x: (N, heads · d, H, W).
        weight: Of queries, keys and values, in this order, (3 · heads · d, heads · d, 1, 1).
        bias: (3 · heads · d,).
        relative_position_bias: As :func:`window_attention` takes it, which this ends in.
        norm: Normalizes ``x`` first.
        backend: As in :func:`window_attention`; by "cpu", queries, keys and values never lie in memory.

    Returns:
        A tensor shaped like ``x``.

    Raises:
        ValueError: The shapes do not fit together or the backend is unknown.
    """
    args = (x, weight, bias, relative_position_bias, *(norm or (None, None, 0.0)))
    if backend == "cpu" or (backend is None and cpu.is_supported(*args)):
        _check(x, x, x, relative_position_bias)
        return _self_attention(*args)
    q, k, v = convolution(x, weight, bias, norm=norm).chunk(3, 1)
    return window_attention(q, k, v, relative_position_bias, backend=backend)


Backend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _by_windows(attend: Backend) -> Backend:
    """A backend for whole maps made of one that takes windows of tokens, (N · windows, heads, w², d)."""

    def backend(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
        heads, window, (height, width) = len(table), _window_of(table), q.shape[2:]
        q, k, v = (_partition(_pad(x, window), heads, window) for x in (q, k, v))
        return _merge(attend(q, k, v, table), height, width)

    return backend


def _reference(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """The definition, with every score in memory."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) + expand_bias(table).to(q.dtype)
    return scores.softmax(-1) @ v


def _sdpa(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """Fused attention of torch, with the bias as a dense mask."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=_mask(table, q.dtype))


def _flex(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """Compiled flex attention, which looks each bias up where it is needed."""
    return (_flex_attention if torch.compiler.is_compiling() else _compiled_flex())(q, k, v, table)


def _flex_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    window = _window_of(table)

    # Made anew at each call, so that it always reads the table it is given.
    def add_bias(score: Tensor, _window: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row = key // window - query // window + window - 1
        column = key % window - query % window + window - 1
        return score + table[head, row * (2 * window - 1) + column]

    return flex_attention(q, k, v, score_mod=add_bias)  # type: ignore[return-value]


@cache
def _compiled_flex() -> Callable[..., Tensor]:
    return torch.compile(_flex_attention)


def expand_bias(table: Tensor) -> Tensor:
    """Lay the bias table out for every pair of pixels in a window.

    Args:
        table: (heads, (2w − 1)²).

    Returns:
        (heads, w², w²), query pixels before key pixels.
    """
    window = _window_of(table)
    grid = table.unflatten(1, (2 * window - 1, 2 * window - 1))
    # patches[h, a, b, y', x'] = grid[h, a + y', b + x'], so query pixel y lies at a = w − 1 − y.
    patches = grid.unfold(1, window, 1).unfold(2, window, 1)
    return patches.flip(1, 2).flatten(3, 4).flatten(1, 2)


def _mask(table: Tensor, dtype: torch.dtype) -> Tensor:
    """The expanded bias in four dimensions, as fused attention wants it.

    On a CPU it is kept for as long as the table lives and keeps its values. Values are compared, not version
    counters: those miss writes through ``.data``. On other devices the comparison would have to wait for the
    device, and expanding is quick.
    """
    learning = torch.is_grad_enabled() and table.requires_grad
    if table.device.type != "cpu" or learning or is_exporting() or torch.compiler.is_compiling():
        return expand_bias(table).to(dtype)[None]
    known, mask = _masks.get(table, (None, None))
    if known is None or mask.dtype != dtype or not torch.equal(known, table):
        with torch.inference_mode(False), torch.no_grad():
            known, mask = table.clone(), expand_bias(table).to(dtype)[None]
        if mask.nbytes <= _LARGEST_MASK_KEPT:
            _masks[table] = (known, mask)
    return mask


_masks: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
_LARGEST_MASK_KEPT = 2**25  # bytes: 4 heads of windows of 32×32 in float32 take 2**24


def _pad(x: Tensor, window: int) -> Tensor:
    """Up to whole windows."""
    height, width = x.shape[2:]
    return reflect_pad(x, right=-width % window, bottom=-height % window)


def _partition(x: Tensor, heads: int, window: int) -> Tensor:
    """(N, heads · d, H, W) to (N · windows, heads, w², d)."""
    x = x.unflatten(3, (-1, window)).unflatten(2, (-1, window)).unflatten(1, (heads, -1))
    return x.permute(0, 3, 5, 1, 4, 6, 2).flatten(4, 5).flatten(0, 2)


def _merge(windows: Tensor, height: int, width: int) -> Tensor:
    """(N · windows, heads, w², d) to (N, heads · d, H, W), without what was padded."""
    window = math.isqrt(windows.shape[2])
    rows, columns = (height + window - 1) // window, (width + window - 1) // window
    x = windows.unflatten(2, (window, window)).unflatten(0, (-1, rows, columns))
    x = x.permute(0, 3, 6, 1, 4, 2, 5).flatten(5, 6).flatten(3, 4).flatten(1, 2)
    return x[:, :, :height, :width]


def _window_of(table: Tensor) -> int:
    return (math.isqrt(table.shape[1]) + 1) // 2


def _choose(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> str:
    """Compiled kernels where they apply, flex attention on a GPU, torch's fused attention everywhere else.

    On a GPU "triton" has not been timed against "flex" yet, so it is not chosen but left to be asked for.
    Only on a CPU that learns the bias, fused attention falls back to a form slower than the definition.
    """
    if is_exporting():
        return "sdpa"
    if cpu.is_supported(q, k, v, table):
        return "cpu"
    if q.is_cuda and has_triton() and q.dtype in (torch.float16, torch.bfloat16, torch.float32):
        return "flex"
    learning = torch.is_grad_enabled() and table.requires_grad
    return "reference" if learning and q.device.type == "cpu" else "sdpa"


def _check(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> None:
    if q.ndim != 4 or q.shape != k.shape or q.shape != v.shape:
        raise ValueError("window_attention takes q, k and v of one shape (N, heads · d, H, W)")
    if table.ndim != 2:
        raise ValueError(f"relative_position_bias must be (heads, (2w − 1)²), not {tuple(table.shape)}")
    heads, columns = table.shape
    side = math.isqrt(columns)
    if side * side != columns or side % 2 == 0:
        raise ValueError(f"relative_position_bias must have (2w − 1)² columns for some w, not {columns}")
    if q.shape[1] % heads:
        raise ValueError(f"{q.shape[1]} channels cannot be shared among {heads} heads")


BACKENDS: dict[str, Backend] = {
    "reference": _by_windows(_reference),
    "sdpa": _by_windows(_sdpa),
    "flex": _by_windows(_flex),
    "triton": triton.window_attention_or(_by_windows(_sdpa)),
    "cpu": cpu.register(cpu.window_attention, fallback=_by_windows(_sdpa)),
}


def _projected(x: Tensor, weight: Tensor, bias: Tensor, table: Tensor, *norm: Any) -> Tensor:
    q, k, v = convolution(x, weight, bias, norm=norm, backend="reference").chunk(3, 1)
    return _by_windows(_sdpa)(q, k, v, table)


_self_attention = cpu.register(cpu.window_self_attention, fallback=_projected)
