"""Window attention as a layer: its projections and its relative position bias."""

import torch
from torch import Tensor, nn

from convattn.layers.plain import convolve, is_plain, norm_first
from convattn.ops import window_attention, window_self_attention

__all__ = ["WindowAttention"]


class WindowAttention(nn.Module):
    """Self-attention within windows of w×w pixels.

    Args:
        dim: Channels in and out.
        window_size: Side of a window in pixels.
        heads: Attention heads; divides ``dim``.
        backend: A backend of :func:`convattn.ops.window_attention`; chosen by the operator where it is None.
    """

    def __init__(self, dim: int, window_size: int, heads: int, *, backend: str | None = None) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads must divide dim: {dim} channels cannot be shared among {heads} heads")
        self.backend = backend
        self.qkv = nn.Conv2d(dim, 3 * dim, 1)
        # Normal in effect. On the meta device normal_ would import torch's compiler, a second and 100 MB.
        table = nn.init.trunc_normal_(torch.empty(heads, (2 * window_size - 1) ** 2), std=0.001)
        self.relative_position_bias = nn.Parameter(table)
        self.project = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, *, norm: nn.Module | None = None, residual: Tensor | None = None) -> Tensor:
        """(N, C, H, W), normalized first if wanted, to the same shape, plus a residual."""
        if is_plain(self.qkv) and self.qkv.bias is not None:
            given, x = norm_first(norm, x)
            weights = (self.qkv.weight, self.qkv.bias, self.bias_table)
            attended = window_self_attention(x, *weights, norm=given, backend=self.backend)
        else:
            q, k, v = convolve(self.qkv, x, norm=norm).chunk(3, 1)
            attended = window_attention(q, k, v, self.bias_table, backend=self.backend)
        return convolve(self.project, attended, residual=residual)

    @property
    def bias_table(self) -> Tensor:
        """The relative position bias as the operator takes it, (heads, (2w − 1)²)."""
        return self.relative_position_bias
