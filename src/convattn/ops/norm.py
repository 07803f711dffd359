"""Layer normalization of feature maps."""

import torch.nn.functional as F
from torch import Tensor

__all__ = ["Norm", "normalize"]

Norm = tuple[Tensor, Tensor, float]
"""Weight and bias, one number a channel each, and what is added to the variance."""


def normalize(x: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float) -> Tensor:
    """Normalize every pixel over its channels.

    Args:
        x: (N, C, H, W).
        weight: (C,); without it nothing is done.
        bias: (C,).
        epsilon: Added to the variance.

    Returns:
        A tensor shaped like ``x``, in channels-last memory.
    """
    if weight is None:
        return x
    return F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, epsilon).permute(0, 3, 1, 2)
