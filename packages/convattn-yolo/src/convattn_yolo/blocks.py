"""The C3k2_ESC blocks: Ultralytics' C3k2 with convolutional attention.

Checkpoints refer to these classes by module path and name, and to their attributes by name: they must stay.
"""

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn.modules import C2f, C3k2, Conv
from ultralytics.nn.modules.block import PSABlock

from convattn.errors import InputError
from convattn.layers import ConvAttention, ConvFFN, LargeKernel, WindowAttention

__all__ = ["BLOCKS", "C3k2_ESC", "C3k2_ESCBranch", "ESCBottleneck", "SharedLargeKernel", "StaticAttention"]

LayerT = TypeVar("LayerT", bound=nn.Module)

KERNEL_DIM = 16
FFN_RATIO = 1.0  # the paper's 1.25 would expand 16 channels to 20, which cost a CPU as much as 32
HEAD_DIM = 16


class SharedLargeKernel(LargeKernel):
    """The large kernel that all blocks of a network share."""

    folded = False

    def forward(self) -> Tensor:
        """Return the symmetric kernel, (dim, dim, size, size)."""
        return self.weight if self.folded else super().forward()

    @torch.no_grad()
    def fold(self) -> None:
        """Store the mean over flips and rotations for inference; called when a network is fused."""
        self.weight.copy_(self())
        self.folded = True


class SpatialWindowAttention(WindowAttention):
    """Window attention with a three-dimensional bias table, as MuSGD would orthogonalize a matrix."""

    def __init__(self, dim: int, window_size: int, heads: int) -> None:
        super().__init__(dim, window_size, heads)
        self.relative_position_bias = nn.Parameter(self.relative_position_bias.detach()[None])

    @property
    def bias_table(self) -> Tensor:
        """Return the relative position bias for the operator, (heads, (2 · window − 1)²)."""
        return self.relative_position_bias[0]


class StaticAttention(nn.Module):
    """Convolutional attention without the kernel made per image: a control for comparisons.

    Args:
        dim: Channels in and out.
        large_kernel_dim: How many of them the large kernel mixes; the others pass unchanged.
    """

    def __init__(self, dim: int, large_kernel_dim: int) -> None:
        super().__init__()
        self.large_kernel_dim = large_kernel_dim
        self.project = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, large_kernel: Tensor) -> Tensor:
        """Return (N, dim, H, W) for (N, dim, H, W) and a kernel (C, C, K, K) of the first C channels."""
        attended, others = x[:, : self.large_kernel_dim], x[:, self.large_kernel_dim :]
        attended = F.conv2d(attended, large_kernel, padding="same")
        return self.project(torch.cat([attended, others], 1))


class ESCBottleneck(nn.Module):
    """``x + ConvAttn(ConvFFN(x))`` with batch normalization after each convolution (ESC, ICCV 2025).

    Args:
        dim: Input and output channels, at least 16.
        kernel_owner: The block whose ``large_kernel`` is used. It is not a submodule: a kernel registered in
            several layers would be averaged and saved several times.
        shortcut: Whether to add the input to the output.
        window: Window size of a window attention before the feed-forward network, or 0 for none.
        dynamic: Whether each image gets a small kernel of its own.
    """

    kernel_owner: "C3k2_ESC | C3k2_ESCBranch"

    def __init__(
        self,
        dim: int,
        kernel_owner: "C3k2_ESC | C3k2_ESCBranch",
        *,
        shortcut: bool = True,
        window: int = 0,
        dynamic: bool = True,
    ) -> None:
        super().__init__()
        self.__dict__["kernel_owner"] = kernel_owner
        self.window_attention = _batch_normalized(_window_attention(dim, window)) if window else None
        self.ffn = _batch_normalized(ConvFFN(dim, FFN_RATIO))
        self.attention = _batch_normalized((ConvAttention if dynamic else StaticAttention)(dim, KERNEL_DIM))
        self.shortcut = shortcut
        # The layer starts as the identity or as zero, which speeds up training from stock weights.
        nn.init.zeros_(self.attention.get_parameter("project.bn.weight"))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, dim, H, W) for (N, dim, H, W)."""
        if self.window_attention is not None:
            x = x + self.window_attention(x)
        out = self.attention(self.ffn(x), self.kernel_owner.large_kernel())
        return x + out if self.shortcut else out


class C3k2_ESC(C2f):  # noqa: N801 - the name that model files carry
    """C3k2 with convolutional attention in place of its inner blocks.

    The arguments are those of Ultralytics' C3k2, in their order, and ``window``.

    Args:
        c1: Input channels.
        c2: Output channels.
        n: Number of inner blocks.
        c3k: Ignored; C3k2 chooses between two kinds of inner blocks by it.
        e: Ratio of hidden to output channels.
        attn: Whether Ultralytics' PSABlock follows each inner block, as in the last row of YOLO26.
        g: Groups; must be 1.
        shortcut: Whether the inner blocks are residual.
        window: Window size of a window attention in each inner block, or 0 for none.
        kernel_owner: The block that owns the network's large kernel; None for the first block, which owns it.
        kernel_size: Side of the large kernel in pixels, if this block owns it.
        dynamic: Whether each image gets a small kernel of its own.

    Raises:
        InputError: There are fewer than 16 hidden channels, or ``g`` is not 1.
    """

    large_kernel: SharedLargeKernel

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        c3k: bool = False,
        e: float = 0.5,
        attn: bool = False,
        g: int = 1,
        shortcut: bool = True,
        window: int = 0,
        *,
        kernel_owner: "C3k2_ESC | C3k2_ESCBranch | None" = None,
        kernel_size: int = 13,
        dynamic: bool = True,
    ) -> None:
        _check_width(int(c2 * e), g)
        super().__init__(c1, c2, n, shortcut, g, e)
        owner = _own_kernel(self, kernel_owner, kernel_size)
        bottlenecks = [
            ESCBottleneck(self.c, owner, shortcut=shortcut, window=window, dynamic=dynamic) for _ in range(n)
        ]
        self.m = nn.ModuleList(_with_attention(b, self.c) if attn else b for b in bottlenecks)


class C3k2_ESCBranch(C3k2):  # noqa: N801 - the name that model files carry
    """C3k2 with a convolutional-attention branch that starts at zero beside each inner block.

    All weights of a trained C3k2 fit; after loading them the block computes exactly the same as C3k2.

    Args:
        c1: Input channels.
        c2: Output channels.
        n: Number of inner blocks.
        e: Ratio of hidden to output channels.
        g: Groups; must be 1.
        window: Window size of a window attention in each branch, or 0 for none.
        kernel_owner: The block that owns the network's large kernel; None for the first block, which owns it.
        kernel_size: Side of the large kernel in pixels, if this block owns it.
        dynamic: Whether each image gets a small kernel of its own.
        **kwargs: Further arguments of C3k2.

    Raises:
        InputError: There are fewer than 16 hidden channels, or ``g`` is not 1.
    """

    large_kernel: SharedLargeKernel
    cv1: Conv
    cv2: Conv

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        *,
        e: float = 0.5,
        g: int = 1,
        window: int = 0,
        kernel_owner: "C3k2_ESC | C3k2_ESCBranch | None" = None,
        kernel_size: int = 13,
        dynamic: bool = True,
        **kwargs: Any,
    ) -> None:
        _check_width(int(c2 * e), g)
        super().__init__(c1, c2, n, e=e, g=g, **kwargs)
        owner = _own_kernel(self, kernel_owner, kernel_size)
        self.branches = nn.ModuleList(
            ESCBottleneck(self.c, owner, shortcut=False, window=window, dynamic=dynamic) for _ in range(n)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, c2, H, W) for (N, c1, H, W)."""
        maps = list(self.cv1(x).split((self.c, self.c), 1))
        for block, branch in zip(self.m, self.branches, strict=True):
            maps.append(block(maps[-1]) + branch(maps[-1]))
        return self.cv2(torch.cat(maps, 1))

    forward_split = forward  # Ultralytics' exporter calls it in C2f and its subclasses


BLOCKS: dict[str, type[nn.Module]] = {"C3k2_ESC": C3k2_ESC, "C3k2_ESCBranch": C3k2_ESCBranch}


def _check_width(hidden: int, groups: int) -> None:
    if hidden < KERNEL_DIM:
        raise InputError(
            f"C3k2_ESC has {hidden} hidden channels here, but its large kernel needs {KERNEL_DIM}: increase "
            "the row's channels or its expansion e, or use C3k2 in this row."
        )
    if groups != 1:
        raise InputError(f"C3k2_ESC does not support g={groups} groups: set g to 1.")


def _own_kernel(
    block: "C3k2_ESC | C3k2_ESCBranch", owner: "C3k2_ESC | C3k2_ESCBranch | None", size: int
) -> "C3k2_ESC | C3k2_ESCBranch":
    """Return the owner of the network's large kernel, making the block the owner if there is none."""
    if owner is not None:
        return owner
    block.large_kernel = SharedLargeKernel(KERNEL_DIM, size)
    return block


def _with_attention(bottleneck: ESCBottleneck, dim: int) -> nn.Module:
    """Append Ultralytics' attention block, as C3k2 does with ``attn``."""
    return nn.Sequential(bottleneck, PSABlock(dim, attn_ratio=0.5, num_heads=max(dim // 64, 1)))


def _window_attention(dim: int, window: int) -> WindowAttention:
    if dim % HEAD_DIM:
        raise InputError(
            f"The window attention of C3k2_ESC needs a multiple of {HEAD_DIM} hidden channels, not {dim}: "
            "change the row's channels or its expansion e, or set window to 0."
        )
    return SpatialWindowAttention(dim, window, dim // HEAD_DIM)


def _batch_normalized(layer: LayerT) -> LayerT:
    """Append a batch normalization to each convolution; Ultralytics' fuse() folds them in again."""
    for name, conv in layer.named_children():
        if isinstance(conv, nn.Conv2d):
            setattr(layer, name, _normalized(conv))
    return layer


def _normalized(conv: nn.Conv2d) -> Conv:
    return Conv(conv.in_channels, conv.out_channels, conv.kernel_size[0], g=conv.groups, act=False)
