"""The convolutional feed-forward network between the operators, which costs as much time as they do.

Source: Lee, Yun and Ro, "Emulating Self-attention with Convolution for Efficient Image Super-Resolution",
ICCV 2025, ConvFFN.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from convattn.ops import checks, cpu
from convattn.ops.backends import Backend, Backends
from convattn.ops.norm import Norm, normalize

__all__ = ["BACKENDS", "FeedForwardWeights", "compose", "feed_forward"]


class FeedForwardWeights(NamedTuple):
    """The parameters of a feed-forward network.

    Attributes:
        expand_weight: (hidden, C, 1, 1).
        expand_bias: (hidden,).
        depthwise_weight: (hidden, 1, 3, 3), zero-padded.
        depthwise_bias: (hidden,).
        project_weight: (C, hidden, 1, 1).
        project_bias: (C,).
    """

    expand_weight: Tensor
    expand_bias: Tensor
    depthwise_weight: Tensor
    depthwise_bias: Tensor
    project_weight: Tensor
    project_bias: Tensor


def feed_forward(
    x: Tensor, weights: FeedForwardWeights, *, norm: Norm | None = None, backend: str | None = None
) -> Tensor:
    """Pointwise, depthwise and pointwise convolution: :func:`compose` of the three.

    Args:
        x: Features, (N, C, H, W).
        weights: Of the three convolutions.
        norm: Normalizes ``x`` first.
        backend: A name in :data:`BACKENDS`; chosen by the function where it is None.

    Returns:
        A tensor shaped like ``x``.

    Raises:
        ValueError: The shapes do not fit together or the backend is unknown.
    """
    checks.feed_forward(x, weights, norm)
    return BACKENDS.run(backend, x, *weights, *(norm or (None, None, 0.0)))


Convolution = Callable[[Tensor], Tensor]


def compose(x: Tensor, expand: Convolution, depthwise: Convolution, project: Convolution) -> Tensor:
    """``project(h + gelu(depthwise(h)))`` with ``h = gelu(expand(x))``, all of shape (N, channels, H, W)."""
    hidden = F.gelu(expand(x))
    return project(hidden + F.gelu(depthwise(hidden)))


def _reference(x: Tensor, *args: Any) -> Tensor:
    """The definition."""
    weights, norm = FeedForwardWeights(*args[:6]), args[6:]
    groups = weights.depthwise_bias.shape[0]
    return compose(
        normalize(x, *norm),
        lambda x: F.conv2d(x, weights.expand_weight, weights.expand_bias),
        lambda x: F.conv2d(x, weights.depthwise_weight, weights.depthwise_bias, padding=1, groups=groups),
        lambda x: F.conv2d(x, weights.project_weight, weights.project_bias),
    )


_cpu = cpu.register(cpu.feed_forward, _reference, gradient=cpu.gradients.feed_forward)

BACKENDS = Backends(
    Backend("reference", _reference),
    Backend("cpu", _cpu, is_best=cpu.is_supported),
    default=_reference,
)
