"""The convolutional feed-forward network."""

from fractions import Fraction

from torch import Tensor, nn

from convattn.layers.fusion import Conv2d, Observable, can_fuse, fusible, norm_weights
from convattn.ops.feed_forward import FeedForwardWeights, compose, feed_forward

__all__ = ["ConvFFN"]


@fusible
class ConvFFN(Observable):
    """Feed-forward network with a depthwise convolution between its two pointwise ones.

    ``project(h + gelu(depthwise(h)))`` with ``h = gelu(expand(x))`` (ESC, section 3.2).

    Args:
        dim: Channels in and out.
        ratio: Expansion ratio: there are ``int(dim · ratio)`` hidden channels.
    """

    halo = 1

    def __init__(self, dim: int, ratio: float | Fraction) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        self.expand = Conv2d(dim, hidden, 1)
        self.depthwise = Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor, *, norm: nn.Module | None = None) -> Tensor:
        """Apply the network.

        Args:
            x: (N, C, H, W).
            norm: Normalizes ``x`` first.

        Returns:
            A tensor shaped like ``x``.
        """
        parts = (self.expand, self.depthwise, self.project)
        if can_fuse(norm, *parts):
            weights = FeedForwardWeights(*(tensor for part in parts for tensor in (part.weight, part.bias)))  # type: ignore[arg-type]
            return feed_forward(x, weights, norm=norm_weights(norm))
        return compose(x if norm is None else norm(x), *parts)
