"""Launches of the kernels, and how torch gets to know them."""

import math
from typing import Any

import torch
import triton
from torch import Tensor

from convattn.ops.padding import fold_reflection
from convattn.ops.relative_bias import window_size
from convattn.ops.triton import kernels

__all__ = ["window_attention"]

# Tokens in the tile that a program owns. In the tile that it walks over a window with there are 64 or, where
# numbers or heads are large, 32: for heads of 8 to 32 channels nothing compiled so spills registers.
_TILE = 64
_BIAS_PROGRAMS = 2048  # about so many: they fill the largest device, and each adds to the table but once


def window_attention(q: Tensor, k: Tensor, v: Tensor, relative_position_bias: Tensor) -> Tensor:
    """As :func:`convattn.ops.window_attention`; memory grows with the map only, backward as well.

    Args:
        q: Queries (N, C, H, W).
        k: Keys of the same shape.
        v: Values of the same shape.
        relative_position_bias: (heads, (2w - 1)²) for windows of w pixels.

    Returns:
        (N, C, H, W).
    """
    return _forward(q, k, v, relative_position_bias)[0]


@torch.library.custom_op("convattn::triton_window_attention", mutates_args=())
def _forward(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """The result, and the log-sum-exp of the scores of each head and pixel."""
    out, lse = _results(q, k, v, table)
    cut = _Cut(q, table, queries=_TILE, keys=_step(q, table))
    cut.run(kernels.forward, cut.windows * cut.query_tiles, q, k, v, table, _map(out), lse)
    return out, lse


@_forward.register_fake
def _results(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    images, _, height, width = q.shape
    lse = q.new_empty((images, len(table), height, width), dtype=torch.float32)
    return _map_like(q, height, width), lse


@torch.library.custom_op("convattn::triton_window_attention_backward", mutates_args=())
def _backward(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, out: Tensor, lse: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, of k and v continued to whole windows, and of the table in float32."""
    q_grad, k_grad, v_grad, table_grad = _gradients(q, k, v, table, out, lse, grad)
    inputs, delta = (q, k, v, table), torch.empty_like(lse)
    cut = _Cut(q, table, queries=_TILE, keys=_step(q, table))
    of_queries = (_map(out), lse, _map(grad), delta, _map(q_grad))
    cut.run(kernels.backward_queries, cut.windows * cut.query_tiles, *inputs, *of_queries)
    cut = _Cut(q, table, queries=_step(q, table), keys=_TILE)
    of_keys = (lse, _map(grad), delta, _map(k_grad), _map(v_grad))
    cut.run(kernels.backward_keys, cut.windows * cut.key_tiles, *inputs, *of_keys)
    cut = _Cut(q, table, queries=_TILE, keys=_TILE // 2)
    pairs = len(table) * cut.query_tiles * cut.key_tiles
    programs = pairs * min(cut.windows // len(table), triton.cdiv(_BIAS_PROGRAMS, pairs))
    cut.run(kernels.backward_bias, programs, *inputs, lse, _map(grad), delta, table_grad)
    return q_grad, k_grad, v_grad, table_grad


@_backward.register_fake
def _gradients(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, out: Tensor, lse: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (height, width), window = q.shape[2:], window_size(table)
    whole = height + -height % window, width + -width % window
    table_grad = torch.zeros(table.shape, dtype=torch.float32, device=table.device)
    return _map_like(q, height, width), _map_like(q, *whole), _map_like(q, *whole), table_grad


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, ...]:
    q, table = ctx.saved_tensors[0], ctx.saved_tensors[3]
    q_grad, k_grad, v_grad, table_grad = _backward(*ctx.saved_tensors, grad)
    k_grad, v_grad = (fold_reflection(x, *q.shape[2:]) for x in (k_grad, v_grad))
    return q_grad, k_grad, v_grad, table_grad.to(table.dtype)


_forward.register_autograd(_differentiate, setup_context=_keep)


class _Cut:
    """The windows of all heads cut into tiles of tokens, which programs work on."""

    def __init__(self, q: Tensor, table: Tensor, *, queries: int, keys: int) -> None:
        images, channels, height, width = q.shape
        heads, window = len(table), window_size(table)
        most = max(16, triton.next_power_of_2(window**2))  # tensor cores multiply 16 rows at least
        self.queries, self.keys = min(queries, most), min(keys, most)
        self.query_tiles = triton.cdiv(window**2, self.queries)
        self.key_tiles = triton.cdiv(window**2, self.keys)
        self.windows = images * heads * triton.cdiv(height, window) * triton.cdiv(width, window)
        self.size, self.window, self.depth = (images, heads, height, width), window, channels // heads

    def run(
        self, kernel: Any, programs: int, q: Tensor, k: Tensor, v: Tensor, table: Tensor, *others: Any
    ) -> None:
        """Start so many programs of a kernel."""
        with torch.cuda.device_of(q):
            kernel[(programs,)](
                *map(_map, (q, k, v)),
                table.contiguous(),
                *others,
                1 / math.sqrt(self.depth),
                self.size,
                WINDOW=self.window,
                DEPTH=self.depth,
                CHANNELS=max(16, triton.next_power_of_2(self.depth)),
                QUERIES=self.queries,
                KEYS=self.keys,
                PRECISION="tf32x3",  # of float32: as exact, by tensor cores
                num_warps=4,
                enable_fp_fusion=True,
                num_stages=1,  # pipelined, the biases would take a detour through shared memory
            )


def _step(q: Tensor, table: Tensor) -> int:
    large = q.dtype == torch.float32 or q.shape[1] // len(table) > 32
    return _TILE // 2 if large else _TILE


def _map(x: Tensor) -> tuple[Tensor | int, ...]:
    """A feature map as kernels take it."""
    return x, *x.stride()


def _map_like(q: Tensor, height: int, width: int) -> Tensor:
    """A map with the channels and the memory format of ``q``."""
    together = q.stride(1) == 1
    memory_format = torch.channels_last if together else torch.contiguous_format
    shape = (*q.shape[:2], height, width)
    return torch.empty(shape, dtype=q.dtype, device=q.device, memory_format=memory_format)
