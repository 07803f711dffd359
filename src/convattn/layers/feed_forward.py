"""The convolutional feed-forward network."""

from torch import Tensor, nn

from convattn.layers.plain import is_plain, norm_first
from convattn.ops.feed_forward import compose, feed_forward

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

    def forward(self, x: Tensor, *, norm: nn.Module | None = None) -> Tensor:
        """(N, C, H, W), normalized first if wanted, to the same shape."""
        parts = (self.expand, self.depthwise, self.project)
        if all(map(is_plain, parts)):
            weights = (tensor for part in parts for tensor in (part.weight, part.bias))
            given, x = norm_first(norm, x)
            return feed_forward(x, *weights, norm=given)  # type: ignore[arg-type]
        return compose(x if norm is None else norm(x), *parts)
