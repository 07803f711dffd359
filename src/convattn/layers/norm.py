"""Layer normalization of feature maps as a layer."""

from torch import Tensor, nn

from convattn.ops.norm import normalize

__all__ = ["LayerNorm2d"]


class LayerNorm2d(nn.LayerNorm):
    """Normalize every pixel over its channels.

    Args:
        dim: Channels.
        eps: Added to the variance.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape, in channels-last memory."""
        return normalize(x, self.weight, self.bias, self.eps)
