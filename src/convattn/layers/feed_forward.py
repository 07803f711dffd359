"""The convolutional feed-forward network."""

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConvFFN"]


class ConvFFN(nn.Module):
    """Feed-forward network with a depthwise convolution between its two pointwise ones.

    ``project(h + gelu(depthwise(h)))`` with ``h = gelu(expand(x))``.

    Args:
        dim: Channels in and out.
        ratio: Hidden channels are ``int(dim · ratio)``.
    """

    def __init__(self, dim: int, ratio: float) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        self.expand = nn.Conv2d(dim, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        hidden = F.gelu(self.expand(x))
        return self.project(hidden + F.gelu(self.depthwise(hidden)))
