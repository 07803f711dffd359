"""Convolutional attention as a layer: the kernel predictor and the operator around it."""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from convattn.layers.plain import convolve, is_watched
from convattn.ops import conv_attention, predict_kernel, predicted_conv_attention

__all__ = ["ConvAttention", "FactoredConvAttention", "KernelPredictor"]


class KernelPredictor(nn.Module):
    """Make one small depthwise kernel for each image from its average features.

    Args:
        dim: Channels.
        hidden: Channels of the bottleneck.
        size: Side of the kernel, odd.
    """

    def __init__(self, dim: int, hidden: int, size: int = 3) -> None:
        super().__init__()
        self.size = size
        self.reduce = nn.Conv2d(dim, hidden, 1)
        self.expand = nn.Conv2d(hidden, dim * size * size, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to kernels (N, C, size, size)."""
        return predict_kernel(x, *self.weights)

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As :func:`convattn.ops.predict_kernel` takes them."""
        reduce, expand = self.reduce, self.expand
        return reduce.weight, cast(Tensor, reduce.bias), expand.weight, cast(Tensor, expand.bias)


class ConvAttention(nn.Module):
    """Convolutional attention on the first channels, then a pointwise convolution over all.

    Args:
        dim: Channels in and out.
        large_kernel_dim: How many of them the large kernel mixes; the others pass.
        backend: A backend of :func:`convattn.ops.conv_attention`; chosen by the operator where it is None.
    """

    backend: str | None = None  # of layers that were pickled before there was a choice

    def __init__(self, dim: int, large_kernel_dim: int, *, backend: str | None = None) -> None:
        super().__init__()
        self.backend = backend
        self.large_kernel_dim = large_kernel_dim
        self.predictor = KernelPredictor(large_kernel_dim, large_kernel_dim // 2)
        nn.init.zeros_(self.predictor.expand.weight)
        nn.init.zeros_(self.predictor.expand.bias)  # type: ignore[arg-type]
        self.project = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, large_kernel: Tensor, *, residual: Tensor | None = None) -> Tensor:
        """(N, C, H, W) and the shared kernel to the same shape, plus a residual."""
        attended, passed = x[:, : self.large_kernel_dim], x[:, self.large_kernel_dim :]
        if is_watched(self.predictor):
            dynamic_kernel = self.predictor(attended)
            attended = conv_attention(attended, large_kernel, dynamic_kernel, backend=self.backend)
        else:
            predictor = self.predictor.weights
            attended = predicted_conv_attention(attended, large_kernel, *predictor, backend=self.backend)
        return convolve(self.project, attended, passed, residual=residual)


class FactoredConvAttention(nn.Module):
    """Convolutional attention of ESC-FP, whose large kernel is pointwise, then depthwise.

    Args:
        dim: Channels in and out.
        large_kernel_dim: How many of them the large kernel mixes; the others pass.
    """

    def __init__(self, dim: int, large_kernel_dim: int) -> None:
        super().__init__()
        self.large_kernel_dim = large_kernel_dim
        self.predictor = KernelPredictor(large_kernel_dim, large_kernel_dim // 4)
        self.project = nn.Conv2d(dim, dim, 1)

    def forward(
        self, x: Tensor, large_kernel: tuple[Tensor, Tensor], *, residual: Tensor | None = None
    ) -> Tensor:
        """(N, C, H, W) and the two shared kernels to the same shape, plus a residual."""
        mixing, depthwise = large_kernel
        attended, passed = x[:, : self.large_kernel_dim], x[:, self.large_kernel_dim :]
        dynamic_kernel = self.predictor(attended)
        attended = conv_attention(F.conv2d(attended, mixing), depthwise, dynamic_kernel)
        return convolve(self.project, attended, passed, residual=residual)
