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

from convattn.ops import checks, cpu, triton
from convattn.ops.backends import Backend, Backends
from convattn.ops.convolution import convolution
from convattn.ops.exporting import is_exporting
from convattn.ops.norm import Norm
from convattn.ops.padding import reflect_pad
from convattn.ops.plain import is_forward_mode
from convattn.ops.relative_bias import as_mask, expand_bias, window_size

__all__ = ["BACKENDS", "window_attention", "window_self_attention"]


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
    checks.window_attention(q, k, v, relative_position_bias)
    return BACKENDS.run(backend, q, k, v, relative_position_bias)


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
    checks.window_self_attention(x, weight, bias, relative_position_bias, norm)
    args = (x, weight, bias, relative_position_bias, *(norm or (None, None, 0.0)))
    return _SELF_BACKENDS.run(backend, *args)


Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _by_windows(attend: Attend) -> Attend:
    """A backend for whole maps made of one that takes windows of tokens, (N · windows, heads, w², d)."""

    def backend(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
        heads, window, (height, width) = len(table), window_size(table), q.shape[2:]
        q, k, v = (_partition(_pad(x, window), heads, window) for x in (q, k, v))
        return _merge(attend(q, k, v, table), height, width)

    return backend


def _reference(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """The definition, with every score in memory."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) + expand_bias(table).to(q.dtype)
    return scores.softmax(-1) @ v


def _sdpa(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """Fused attention of torch, with the bias as a dense mask."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=as_mask(table, q.dtype))


def _flex(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """Compiled flex attention, which looks each bias up where it is needed."""
    return (_flex_attention if torch.compiler.is_compiling() else _compiled_flex())(q, k, v, table)


def _flex_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    window = window_size(table)

    # Made at each call, so that it always reads the table it is given.
    def add_bias(score: Tensor, _window: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row = key // window - query // window + window - 1
        column = key % window - query % window + window - 1
        return score + table[head, row * (2 * window - 1) + column]

    return flex_attention(q, k, v, score_mod=add_bias)  # type: ignore[return-value]


@cache
def _compiled_flex() -> Callable[..., Tensor]:
    return torch.compile(_flex_attention)


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


def _is_exported(*args: Tensor) -> bool:
    return is_exporting()


def _suits_flex(q: Tensor, *others: Tensor) -> bool:
    """On GPUs. "triton" has not been timed against it yet, so it is taken on request only."""
    return q.is_cuda and has_triton() and q.dtype in (torch.float16, torch.bfloat16, torch.float32)


def _suits_reference(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> bool:
    """On a CPU fused attention has no forward mode, and is slower than the definition if the bias learns."""
    learning = torch.is_grad_enabled() and table.requires_grad
    return q.device.type == "cpu" and (learning or is_forward_mode())


def _project(
    x: Tensor, weight: Tensor, bias: Tensor, table: Tensor, *norm: Any, backend: str | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = None if norm[0] is None else norm
    q, k, v = convolution(x, weight, bias, norm=given, backend=backend).chunk(3, 1)  # type: ignore[arg-type]
    return q, k, v, table


_by_sdpa = _by_windows(_sdpa)
_cpu = cpu.register(cpu.window_attention, _by_sdpa)
_self_cpu = cpu.register(
    cpu.window_self_attention,
    lambda *args: _by_sdpa(*_project(*args, backend="reference")),
    gradient=cpu.gradients.window_self_attention,
)

BACKENDS = Backends(
    Backend("sdpa", _by_sdpa, is_best=_is_exported),
    Backend("cpu", _cpu, is_best=cpu.is_supported_for_inference),
    Backend("flex", _by_windows(_flex), is_best=_suits_flex),
    Backend("triton", triton.window_attention_or(_by_sdpa)),
    Backend("reference", _by_windows(_reference), is_best=_suits_reference),
    default=_by_sdpa,
)

_SELF_BACKENDS = BACKENDS.after(_project, Backend("cpu", _self_cpu, is_best=cpu.is_supported))
