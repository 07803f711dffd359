"""The C3k2_ESC blocks: Ultralytics' C3k2 with convolutional attention inside.

Checkpoints pickle these classes by module path and name and their attributes by name: all of them must stay.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import C2f, C3k2, Conv
from ultralytics.nn.modules.block import PSABlock

from convattn.errors import InputError
from convattn.layers import ConvAttention, ConvFFN, LargeKernel, WindowAttention

__all__ = ["BLOCKS", "C3k2_ESC", "C3k2_ESCBranch", "ESCBottleneck", "SharedLargeKernel"]

LayerT = TypeVar("LayerT", bound=nn.Module)

KERNEL_DIM = 16
FFN_RATIO = 1.0  # 1.25, as in the paper, makes 20 channels of 16, which cost a CPU as much as 32
HEAD_DIM = 16


class SharedLargeKernel(LargeKernel):
    """The one large kernel of a detection network."""

    folded = False

    def forward(self) -> Tensor:
        """The kernel as it is used, (dim, dim, size, size)."""
        return self.weight if self.folded else super().forward()

    @torch.no_grad()
    def fold(self) -> None:
        """Store the mean over flips and rotations, for inference: fusing a network does so."""
        self.weight.copy_(self())
        self.folded = True


class SpatialWindowAttention(WindowAttention):
    """Window attention whose bias table has three dimensions: MuSGD would orthogonalise a matrix."""

    def __init__(self, dim: int, window_size: int, heads: int) -> None:
        super().__init__(dim, window_size, heads)
        self.relative_position_bias = nn.Parameter(self.relative_position_bias.detach()[None])

    @property
    def bias_table(self) -> Tensor:
        """The relative position bias as the operator takes it, (heads, (2w − 1)²)."""
        return self.relative_position_bias[0]


class ESCBottleneck(nn.Module):
    """``ConvAttn(ConvFFN(x))``, batch-normalized after each convolution, with a shortcut around it.

    Args:
        dim: Channels in and out, 16 or more.
        kernel_owner: The block whose ``large_kernel`` is used. It is not registered as a part of this layer:
            a kernel registered in each layer would be averaged and saved once for each.
        shortcut: Whether the input is added to the output.
        window: Side of the windows of a window attention ahead of it all, or 0 for none.
    """

    kernel_owner: "C3k2_ESC | C3k2_ESCBranch"

    def __init__(
        self,
        dim: int,
        kernel_owner: "C3k2_ESC | C3k2_ESCBranch",
        *,
        shortcut: bool = True,
        window: int = 0,
    ) -> None:
        super().__init__()
        self.__dict__["kernel_owner"] = kernel_owner
        self.window_attention = _batch_normalized(_window_attention(dim, window)) if window else None
        self.ffn = _batch_normalized(ConvFFN(dim, FFN_RATIO))
        self.attention = _batch_normalized(ConvAttention(dim, KERNEL_DIM))
        self.shortcut = shortcut
        # The layer starts as its shortcut alone, or as zero: training from stock weights then goes faster.
        nn.init.zeros_(self.attention.get_parameter("project.bn.weight"))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        if self.window_attention is not None:
            x = x + self.window_attention(x)
        out = self.attention(self.ffn(x), self.kernel_owner.large_kernel())
        return x + out if self.shortcut else out


class C3k2_ESC(C2f):  # noqa: N801 - the name that model files carry
    """C3k2 whose inner blocks are convolutional attention.

    Takes the arguments of Ultralytics' C3k2 in their order, and ``window`` after them.

    Args:
        c1: Channels in.
        c2: Channels out.
        n: Inner blocks.
        c3k: Accepted because C3k2 has it; both of its inner blocks are replaced by the same one.
        e: Hidden channels for each channel out.
        attn: Whether an attention block of Ultralytics' follows each inner block, as in YOLO26's last row.
        g: Groups; the shared kernel allows but one.
        shortcut: Whether the inner blocks are residual.
        window: Side of the windows of a window attention in each inner block, or 0 for none.
        kernel_owner: The block of the network that owns the large kernel; None makes this one the owner.

    Raises:
        InputError: The hidden channels are too few for the kernel, or ``g`` is not 1.
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
    ) -> None:
        _check_width(int(c2 * e), g)
        super().__init__(c1, c2, n, shortcut, g, e)
        owner = _own_kernel(self, kernel_owner)
        bottlenecks = [ESCBottleneck(self.c, owner, shortcut=shortcut, window=window) for _ in range(n)]
        self.m = nn.ModuleList(_with_attention(b, self.c) if attn else b for b in bottlenecks)


class C3k2_ESCBranch(C3k2):  # noqa: N801 - the name that model files carry
    """C3k2 as it is, with a convolutional attention that starts at zero beside each inner block.

    All weights of a trained C3k2 fit, and after loading them the block computes exactly what C3k2 does.

    Args:
        c1: Channels in.
        c2: Channels out.
        n: Inner blocks.
        e: Hidden channels for each channel out.
        g: Groups; the shared kernel allows but one.
        window: Side of the windows of a window attention in each branch, or 0 for none.
        kernel_owner: The block of the network that owns the large kernel; None makes this one the owner.
        **kwargs: Further arguments of C3k2.

    Raises:
        InputError: The hidden channels are too few for the kernel, or ``g`` is not 1.
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
        **kwargs: Any,
    ) -> None:
        _check_width(int(c2 * e), g)
        super().__init__(c1, c2, n, e=e, g=g, **kwargs)
        owner = _own_kernel(self, kernel_owner)
        self.branches = nn.ModuleList(
            ESCBottleneck(self.c, owner, shortcut=False, window=window) for _ in range(n)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, c1, H, W) to (N, c2, H, W)."""
        maps = list(self.cv1(x).split((self.c, self.c), 1))
        for block, branch in zip(self.m, self.branches, strict=True):
            maps.append(block(maps[-1]) + branch(maps[-1]))
        return self.cv2(torch.cat(maps, 1))

    forward_split = forward  # the name that Ultralytics' exporter calls C2f and its subclasses by


BLOCKS: dict[str, type[nn.Module]] = {"C3k2_ESC": C3k2_ESC, "C3k2_ESCBranch": C3k2_ESCBranch}


def _check_width(hidden: int, groups: int) -> None:
    if hidden < KERNEL_DIM:
        raise InputError(
            f"C3k2_ESC has {hidden} hidden channels here and its shared 13×13 kernel mixes {KERNEL_DIM}: "
            "raise the row's channels or its expansion e, or leave C3k2 in this row."
        )
    if groups != 1:
        raise InputError(f"C3k2_ESC cannot split its channels into g={groups} groups: leave g at 1.")


def _own_kernel(
    block: "C3k2_ESC | C3k2_ESCBranch", owner: "C3k2_ESC | C3k2_ESCBranch | None"
) -> "C3k2_ESC | C3k2_ESCBranch":
    """Give the block the network's kernel if nobody owns it yet; the owner either way."""
    if owner is not None:
        return owner
    block.large_kernel = SharedLargeKernel(KERNEL_DIM)
    return block


def _with_attention(bottleneck: ESCBottleneck, dim: int) -> nn.Module:
    """What C3k2 does with ``attn``, its bottleneck aside."""
    return nn.Sequential(bottleneck, PSABlock(dim, attn_ratio=0.5, num_heads=max(dim // 64, 1)))


def _window_attention(dim: int, window: int) -> WindowAttention:
    if dim % HEAD_DIM:
        raise InputError(
            f"the window attention of C3k2_ESC needs hidden channels in multiples of {HEAD_DIM}, not {dim}: "
            "change the row's channels or its expansion e, or leave window at 0."
        )
    return SpatialWindowAttention(dim, window, dim // HEAD_DIM)


def _batch_normalized(layer: LayerT) -> LayerT:
    """Put a batch normalization after each convolution; Ultralytics' fuse() folds them in again."""
    for name, conv in layer.named_children():
        if isinstance(conv, nn.Conv2d):
            setattr(layer, name, _normalized(conv))
    return layer


def _normalized(conv: nn.Conv2d) -> Conv:
    return Conv(conv.in_channels, conv.out_channels, conv.kernel_size[0], g=conv.groups, act=False)
