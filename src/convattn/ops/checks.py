"""Whether the arguments of the operators fit together: checked once a call, the same for every backend.

Each function is named after the operator whose arguments it takes, in the shapes documented there, and raises
a ValueError that names the argument, the shape it must have and the one it has. While a graph is exported,
sizes may be symbols; nothing is checked then.
"""

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec

from torch import Tensor

from convattn.ops.exporting import is_exporting
from convattn.ops.norm import Norm

__all__ = [
    "conv_attention",
    "convolution",
    "feed_forward",
    "predict_kernel",
    "predicted_conv_attention",
    "reflect_pad",
    "window_attention",
    "window_self_attention",
]

P = ParamSpec("P")


def _unless_exporting(check: Callable[P, None]) -> Callable[P, None]:
    @wraps(check)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        if not is_exporting():
            check(*args, **kwargs)

    return checked


@_unless_exporting
def conv_attention(x: Tensor, large_kernel: Tensor, dynamic_kernel: Tensor) -> None:
    """Check features and both kernels."""
    if not x.ndim == large_kernel.ndim == dynamic_kernel.ndim == 4:
        raise ValueError("conv_attention takes features (N, C, H, W) and kernels of four dimensions")
    _large_kernel(x, large_kernel)
    _odd_square("dynamic_kernel", dynamic_kernel)
    _shape("dynamic_kernel", dynamic_kernel, (*x.shape[:2], *dynamic_kernel.shape[2:]))


@_unless_exporting
def predict_kernel(
    x: Tensor, reduce_weight: Tensor, reduce_bias: Tensor, expand_weight: Tensor, expand_bias: Tensor
) -> None:
    """Check features and the predictor's weights."""
    channels, hidden = _channels("x", x), _length("reduce_bias", reduce_bias)
    size = math.isqrt(_length("expand_bias", expand_bias) // channels)
    if size % 2 == 0:
        raise ValueError(
            f"expand_bias must hold {channels} · k² numbers for some odd k, not {len(expand_bias)}"
        )
    _shape("reduce_weight", reduce_weight, (hidden, channels, 1, 1))
    _shape("expand_weight", expand_weight, (channels * size**2, hidden, 1, 1))
    _shape("expand_bias", expand_bias, (channels * size**2,))


@_unless_exporting
def predicted_conv_attention(x: Tensor, large_kernel: Tensor, *predictor: Tensor) -> None:
    """Check features, the large kernel and the predictor's weights."""
    predict_kernel(x, *predictor)
    _large_kernel(x, large_kernel)


@_unless_exporting
def convolution(
    x: Tensor, weight: Tensor, bias: Tensor, other: Tensor | None, residual: Tensor | None, norm: Norm | None
) -> None:
    """Check one or two maps, the kernel, the residual and the normalization."""
    if weight.ndim != 4 or weight.shape[2:] not in ((1, 1), (3, 3)):
        raise ValueError(f"weight must be (out, in, 1, 1) or (out, in, 3, 3), not {tuple(weight.shape)}")
    channels = _channels("x", x)
    outs, others = _length("bias", bias), other.shape[1] if other is not None and other.ndim == 4 else 0
    _shape("weight", weight, (outs, channels + others, *weight.shape[2:]))
    for name, y, count in (("other", other, others), ("residual", residual, outs)):
        if y is not None:
            _shape(name, y, (x.shape[0], count, *x.shape[2:]))
    _norm(norm, channels)


@_unless_exporting
def feed_forward(x: Tensor, weights: Sequence[Tensor], norm: Norm | None) -> None:
    """Check features, the weights in the order of ``FeedForwardWeights``, and the normalization."""
    expand_weight, expand_bias, depthwise_weight, depthwise_bias, project_weight, project_bias = weights
    channels, hidden = _channels("x", x), _length("expand_bias", expand_bias)
    _shape("expand_weight", expand_weight, (hidden, channels, 1, 1))
    _shape("depthwise_weight", depthwise_weight, (hidden, 1, 3, 3))
    _shape("depthwise_bias", depthwise_bias, (hidden,))
    _shape("project_weight", project_weight, (channels, hidden, 1, 1))
    _shape("project_bias", project_bias, (channels,))
    _norm(norm, channels)


@_unless_exporting
def window_attention(q: Tensor, k: Tensor, v: Tensor, relative_position_bias: Tensor) -> None:
    """Check queries, keys, values and the bias table."""
    if q.ndim != 4 or q.shape != k.shape or q.shape != v.shape:
        raise ValueError("window_attention takes q, k and v of one shape (N, heads · d, H, W)")
    _table(_channels("q", q), relative_position_bias)


@_unless_exporting
def window_self_attention(
    x: Tensor, weight: Tensor, bias: Tensor, relative_position_bias: Tensor, norm: Norm | None
) -> None:
    """Check features, the projection, the bias table and the normalization."""
    channels = _channels("x", x)
    _shape("weight", weight, (3 * channels, channels, 1, 1))
    _shape("bias", bias, (3 * channels,))
    _table(channels, relative_position_bias)
    _norm(norm, channels)


@_unless_exporting
def reflect_pad(x: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> None:
    """Check a map, and how many pixels are added before and after its rows and columns."""
    if x.ndim != 4:
        raise ValueError(f"x must be (N, C, H, W), not {tuple(x.shape)}")
    for size, added in zip(x.shape[2:], (rows, columns), strict=True):
        if min(added) < 0 or (size == 0 and max(added) > 0):
            raise ValueError(f"a side of {size} pixels cannot be continued by {added[0]} and {added[1]}")


def _channels(name: str, x: Tensor) -> int:
    if x.ndim != 4 or x.shape[1] == 0:
        raise ValueError(f"{name} must be (N, C, H, W) with at least one channel, not {tuple(x.shape)}")
    return x.shape[1]


def _length(name: str, x: Tensor) -> int:
    if x.ndim != 1 or x.shape[0] == 0:
        raise ValueError(f"{name} must be one row of numbers, not {tuple(x.shape)}")
    return x.shape[0]


def _shape(name: str, x: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(x.shape) != shape:
        raise ValueError(f"{name} must be {shape}, not {tuple(x.shape)}")


def _large_kernel(x: Tensor, large_kernel: Tensor) -> None:
    channels, shape = _channels("x", x), tuple(large_kernel.shape)
    if len(shape) != 4 or shape[0] != channels or shape[1] not in (1, channels):
        raise ValueError(
            f"large_kernel must be ({channels}, {channels}, K, K) or ({channels}, 1, K, K) for features of "
            f"{channels} channels, not {shape}"
        )
    _odd_square("large_kernel", large_kernel)


def _odd_square(name: str, kernel: Tensor) -> None:
    if kernel.shape[2] != kernel.shape[3] or kernel.shape[2] % 2 == 0:
        raise ValueError(f"{name} must be square with an odd side, not {tuple(kernel.shape[2:])}")


def _table(channels: int, table: Tensor) -> None:
    if table.ndim != 2 or table.shape[0] == 0:
        raise ValueError(f"relative_position_bias must be (heads, (2w − 1)²), not {tuple(table.shape)}")
    heads, columns = table.shape
    side = math.isqrt(columns)
    if side * side != columns or side % 2 == 0:
        raise ValueError(f"relative_position_bias must have (2w − 1)² columns for some w, not {columns}")
    if channels % heads:
        raise ValueError(f"{channels} channels cannot be shared among {heads} heads")


def _norm(norm: Norm | None, channels: int) -> None:
    if norm is not None:
        _shape("the weight of norm", norm[0], (channels,))
        _shape("the bias of norm", norm[1], (channels,))
