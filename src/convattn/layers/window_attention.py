"""Window attention as a layer: its projections and its relative position bias."""

import math
from typing import cast

import torch
from torch import Tensor, nn

from convattn.layers.fusion import Conv2d, can_fuse, convolve, norm_weights
from convattn.ops import window_attention, window_self_attention

__all__ = ["WindowAttention"]


class WindowAttention(nn.Module):
    """Self-attention within windows of w×w pixels.

    Args:
        dim: Channels in and out.
        window_size: Side of a window in pixels.
        heads: Attention heads; divides ``dim``.
        backend: A backend of :func:`convattn.ops.window_attention`; None lets the operator choose.

    Raises:
        ValueError: ``heads`` does not divide ``dim``.
    """

    halo = 0

    def __init__(self, dim: int, window_size: int, heads: int, *, backend: str | None = None) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads must divide dim, but {dim} channels do not split into {heads} heads")
        self.backend = backend
        self.qkv = Conv2d(dim, 3 * dim, 1)
        # Hardly truncated at all. But on the meta device normal_ would import torch's compiler (1 s, 100 MB).
        table = nn.init.trunc_normal_(torch.empty(heads, (2 * window_size - 1) ** 2), std=0.001)
        self.relative_position_bias = nn.Parameter(table)
        self.project = Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, *, norm: nn.Module | None = None, residual: Tensor | None = None) -> Tensor:
        """Attend within each window.

        Args:
            x: (N, C, H, W).
            norm: Normalizes ``x`` first.
            residual: Added to the result.

        Returns:
            A tensor shaped like ``x``.
        """
        if can_fuse(norm, self.qkv):
            weights = (self.qkv.weight, cast(Tensor, self.qkv.bias), self.bias_table)
            attended = window_self_attention(x, *weights, norm=norm_weights(norm), backend=self.backend)
        else:
            q, k, v = convolve(self.qkv, x, norm=norm).chunk(3, 1)
            attended = window_attention(q, k, v, self.bias_table, backend=self.backend)
        return convolve(self.project, attended, residual=residual, memory=attended)

    @property
    def bias_table(self) -> Tensor:
        """The relative position bias as the operator takes it, (heads, (2w − 1)²)."""
        return self.relative_position_bias

    @property
    def window_size(self) -> int:
        """Side of a window in pixels."""
        return (math.isqrt(self.bias_table.shape[1]) + 1) // 2
