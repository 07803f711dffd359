"""The large kernel that all layers of a network share (ESC, section 3.1)."""

import torch
from torch import Tensor, nn

__all__ = ["FactoredLargeKernel", "LargeKernel", "mean_over_symmetries"]


def mean_over_symmetries(kernel: Tensor) -> Tensor:
    """Average a kernel over the 8 flips and rotations of the square.

    Args:
        kernel: (…, K, K).

    Returns:
        The same shape in contiguous memory, equal to each of its flips and rotations.
    """
    flipped = kernel + kernel.flip(-1)
    both = flipped + flipped.flip(-2)
    mean = (both + both.transpose(-2, -1)) / 8
    return mean.contiguous()  # once, where every layer would copy a channels-last kernel


class LargeKernel(nn.Module):
    """The parameter of a network's one dense large kernel.

    Args:
        dim: Channels that the kernel mixes.
        size: Side of the kernel, odd.
    """

    def __init__(self, dim: int, size: int = 13) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(dim, dim, size, size)))

    def forward(self) -> Tensor:
        """Return the kernel (dim, dim, size, size), averaged over flips and rotations."""
        return mean_over_symmetries(self.weight)


class FactoredLargeKernel(nn.Module):
    """The parameters of the large kernel of ESC-FP, factored into a pointwise and a depthwise kernel.

    Args:
        dim: Channels.
        size: Side of the depthwise kernel, odd.
    """

    def __init__(self, dim: int, size: int = 13) -> None:
        super().__init__()
        self.pointwise = nn.Parameter(torch.randn(dim, dim, 1, 1))
        self.depthwise = nn.Parameter(nn.init.orthogonal_(torch.empty(dim, 1, size, size)))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the pointwise (dim, dim, 1, 1) and the depthwise (dim, 1, size, size) kernel."""
        return self.pointwise, self.depthwise
