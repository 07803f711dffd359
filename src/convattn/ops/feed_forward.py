"""The convolutional feed-forward network between the operators, which costs as much time as they do.

Source: Lee, Yun and Ro, "Emulating Self-attention with Convolution for Efficient Image Super-Resolution",
ICCV 2025, ConvFFN.
"""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from convattn.ops import cpu
from convattn.ops.norm import Norm, normalize

__all__ = ["BACKENDS", "compose", "feed_forward"]


def feed_forward(
    x: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor,
    project_weight: Tensor,
    project_bias: Tensor,
    *,
    norm: Norm | None = None,
    backend: str | None = None,
) -> Tensor:
    """Pointwise, depthwise and pointwise convolution: :func:`compose` of the three.

    Args:
        x: Features, (N, C, H, W).
        expand_weight: (hidden, C, 1, 1).
        expand_bias: (hidden,).
        depthwise_weight: (hidden, 1, 3, 3), zero-padded.
        depthwise_bias: (hidden,).
        project_weight: (C, hidden, 1, 1).
        project_bias: (C,).
        norm: Normalizes ``x`` first.
        backend: A name in :data:`BACKENDS`; chosen by the function where it is None.

    Returns:
        A tensor shaped like ``x``.

    Raises:
        ValueError: The backend is unknown.
    """
    weights = (expand_weight, expand_bias, depthwise_weight, depthwise_bias, project_weight, project_bias)
    args = (x, *weights, *(norm or (None, None, 0.0)))
    name = backend or ("cpu" if cpu.is_supported(*args) else "reference")
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; choose from {', '.join(BACKENDS)}")
    return BACKENDS[name](*args)


Convolution = Callable[[Tensor], Tensor]


def compose(x: Tensor, expand: Convolution, depthwise: Convolution, project: Convolution) -> Tensor:
    """``project(h + gelu(depthwise(h)))`` with ``h = gelu(expand(x))``."""
    hidden = F.gelu(expand(x))
    return project(hidden + F.gelu(depthwise(hidden)))


def _reference(
    x: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor,
    project_weight: Tensor,
    project_bias: Tensor,
    *norm: Any,
) -> Tensor:
    """The definition."""
    return compose(
        normalize(x, *norm),
        lambda x: F.conv2d(x, expand_weight, expand_bias),
        lambda x: F.conv2d(x, depthwise_weight, depthwise_bias, padding=1, groups=len(depthwise_bias)),
        lambda x: F.conv2d(x, project_weight, project_bias),
    )


BACKENDS: dict[str, Callable[..., Tensor]] = {
    "reference": _reference,
    "cpu": cpu.register(cpu.feed_forward, fallback=_reference),
}
