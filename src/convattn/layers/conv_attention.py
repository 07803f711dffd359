"""Convolutional attention as a layer: the kernel predictor and the operator around it."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convattn.layers.fusion import Conv2d, Observable, can_fuse, convolve, fusible
from convattn.ops import conv_attention, predicted_conv_attention

__all__ = ["ConvAttention", "FactoredConvAttention", "KernelPredictor"]


@fusible
class KernelPredictor(Observable):
    """Predict one small depthwise kernel for each image from its average features.

    Args:
        dim: Channels.
        hidden: Channels of the bottleneck.
        size: Side of the kernel, odd.
    """

    def __init__(self, dim: int, hidden: int, size: int = 3) -> None:
        super().__init__()
        self.size = size
        self.reduce = Conv2d(dim, hidden, 1)
        self.expand = Conv2d(hidden, dim * size * size, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``expand(gelu(reduce(average of x)))``.

        Args:
            x: (N, C, H, W), or the average itself, (N, C, 1, 1).

        Returns:
            Kernels (N, C, size, size).
        """
        # Summed in float32: half precision overflows on large images.
        average = x.mean((2, 3), keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
        kernels = self.expand(F.gelu(self.reduce(average.to(x.dtype))))
        return kernels.reshape(-1, x.shape[1], self.size, self.size)

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What :func:`convattn.ops.predict_kernel` takes.

        (hidden, C, 1, 1), (hidden,), (C · size², hidden, 1, 1) and (C · size²,).
        """
        reduce, expand = self.reduce, self.expand
        return reduce.weight, cast(Tensor, reduce.bias), expand.weight, cast(Tensor, expand.bias)


@fusible
class ConvAttention(Observable):
    """Convolutional attention on the first channels, then a pointwise convolution over all.

    Source: ESC, section 3.1.

    Args:
        dim: Channels in and out.
        large_kernel_dim: How many of them the large kernel mixes; the others pass unchanged.
        kernel_size: Side of the large kernel in pixels.
        backend: A backend of :func:`convattn.ops.conv_attention`; None lets the operator choose.
    """

    backend: str | None = None  # for layers that were pickled before this attribute existed

    def __init__(
        self, dim: int, large_kernel_dim: int, kernel_size: int = 13, *, backend: str | None = None
    ) -> None:
        super().__init__()
        self.backend = backend
        self.halo = kernel_size // 2
        self.large_kernel_dim = large_kernel_dim
        self.predictor = KernelPredictor(large_kernel_dim, large_kernel_dim // 2)
        nn.init.zeros_(self.predictor.expand.weight)
        nn.init.zeros_(self.predictor.expand.bias)  # type: ignore[arg-type]
        self.project = Conv2d(dim, dim, 1)

    def forward(
        self,
        x: Tensor,
        large_kernel: Tensor,
        *,
        average: Tensor | None = None,
        residual: Tensor | None = None,
        overwrite: bool = False,
    ) -> Tensor:
        """Apply the large kernel and each image's own small one.

        Args:
            x: (N, C, H, W).
            large_kernel: The shared kernel, (large_kernel_dim, large_kernel_dim, K, K), as
                :class:`~convattn.layers.LargeKernel` makes it: equal to its flips and rotations, over which
                its gradient may be averaged.
            average: The features averaged over the image, (N, C, 1, 1), from which the small kernels are
                predicted; by default that of ``x``.
            residual: Added to the result.
            overwrite: Whether the result may take the memory of ``x``, which has no values afterwards.

        Returns:
            A tensor shaped like ``x``.
        """
        attended, others = _split(x, self.large_kernel_dim)
        predictor = self.predictor
        if average is None and can_fuse(predictor, predictor.reduce, predictor.expand):
            weights = predictor.weights
            attended = predicted_conv_attention(
                attended, large_kernel, *weights, symmetric=True, backend=self.backend
            )
        else:
            dynamic_kernel = _predict(predictor, attended, average)
            attended = conv_attention(
                attended, large_kernel, dynamic_kernel, symmetric=True, backend=self.backend
            )
        memory = x if overwrite else None
        return convolve(self.project, attended, others, residual=residual, memory=memory)


@fusible
class FactoredConvAttention(Observable):
    """Convolutional attention of ESC-FP, whose large kernel is pointwise, then depthwise.

    Args:
        dim: Channels in and out.
        large_kernel_dim: How many of them the large kernel mixes; the others pass unchanged.
        kernel_size: Side of the depthwise kernel in pixels.
    """

    def __init__(self, dim: int, large_kernel_dim: int, kernel_size: int = 13) -> None:
        super().__init__()
        self.halo = kernel_size // 2
        self.large_kernel_dim = large_kernel_dim
        self.predictor = KernelPredictor(large_kernel_dim, large_kernel_dim // 4)
        self.project = Conv2d(dim, dim, 1)

    def forward(
        self,
        x: Tensor,
        large_kernel: tuple[Tensor, Tensor],
        *,
        average: Tensor | None = None,
        residual: Tensor | None = None,
        overwrite: bool = False,
    ) -> Tensor:
        """Apply the factored kernel and each image's own small one.

        Args:
            x: (N, C, H, W).
            large_kernel: The shared pointwise and depthwise kernels.
            average: As in :class:`ConvAttention`.
            residual: Added to the result.
            overwrite: As in :class:`ConvAttention`.

        Returns:
            A tensor shaped like ``x``.
        """
        mixing, depthwise = large_kernel
        attended, others = _split(x, self.large_kernel_dim)
        dynamic_kernel = _predict(self.predictor, attended, average)
        attended = conv_attention(F.conv2d(attended, mixing), depthwise, dynamic_kernel)
        memory = x if overwrite else None
        return convolve(self.project, attended, others, residual=residual, memory=memory)


def _split(x: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    attended, others = x.split((channels, x.shape[1] - channels), 1)  # its gradient is one concatenation
    return attended, others


def _predict(predictor: KernelPredictor, attended: Tensor, average: Tensor | None) -> Tensor:
    """The dynamic kernels, from the average of all channels or else of the attended features."""
    return predictor(attended if average is None else average[:, : attended.shape[1]].to(attended.dtype))
