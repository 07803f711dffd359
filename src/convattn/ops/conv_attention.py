"""Convolutional attention: one large kernel for every image, one small kernel made for each.

Source: Lee, Yun and Ro, "Emulating Self-attention with Convolution for Efficient Image Super-Resolution",
ICCV 2025, the ConvAttn operator.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from convattn.ops import checks, cpu
from convattn.ops.backends import Backend, Backends
from convattn.ops.exporting import is_exporting

__all__ = ["BACKENDS", "conv_attention", "predict_kernel", "predicted_conv_attention"]


def conv_attention(
    x: Tensor,
    large_kernel: Tensor,
    dynamic_kernel: Tensor,
    *,
    symmetric: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Convolve with the shared large kernel and with each image's own small kernel, and add.

    ``out[n] = x[n] * large_kernel + x[n] * dynamic_kernel[n]``, zero-padded, where the first convolution is
    dense (or depthwise, by the kernel's shape) and the second depthwise.

    Args:
        x: Features, (N, C, H, W), any size from 1×1.
        large_kernel: (C, C, K, K) for a dense or (C, 1, K, K) for a depthwise convolution, K odd.
        dynamic_kernel: One depthwise kernel an image, (N, C, k, k), k odd.
        symmetric: Says that the large kernel comes from :func:`convattn.layers.mean_over_symmetries`. Its
            gradient may then be averaged over flips and rotations already, which is six times less work.
            For a kernel that is not exactly equal to them all, the gradient is that of every tap.
        backend: A name in :data:`BACKENDS`; chosen by the operator where it is None.

    Returns:
        A new tensor shaped like ``x``, which is never written to.

    Raises:
        ValueError: The shapes do not fit together or the backend is unknown.
    """
    checks.conv_attention(x, large_kernel, dynamic_kernel)
    return BACKENDS.run(backend, x, large_kernel, dynamic_kernel, symmetric)


def predict_kernel(
    x: Tensor, reduce_weight: Tensor, reduce_bias: Tensor, expand_weight: Tensor, expand_bias: Tensor
) -> Tensor:
    """Make one small depthwise kernel for each image: ``expand(gelu(reduce(average of x)))``.

    Args:
        x: (N, C, H, W).
        reduce_weight: (hidden, C, 1, 1).
        reduce_bias: (hidden,).
        expand_weight: (C · k², hidden, 1, 1).
        expand_bias: (C · k²,).

    Returns:
        (N, C, k, k).

    Raises:
        ValueError: The shapes do not fit together.
    """
    checks.predict_kernel(x, reduce_weight, reduce_bias, expand_weight, expand_bias)
    # Summed in float32: half precision overflows on large images.
    average = x.mean((2, 3), keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
    hidden = F.gelu(F.conv2d(average.to(x.dtype), reduce_weight, reduce_bias))
    size = math.isqrt(len(expand_bias) // x.shape[1])
    return F.conv2d(hidden, expand_weight, expand_bias).reshape(x.shape[0], x.shape[1], size, size)


def predicted_conv_attention(
    x: Tensor,
    large_kernel: Tensor,
    *predictor: Tensor,
    symmetric: bool = False,
    backend: str | None = None,
) -> Tensor:
    """:func:`conv_attention` with the small kernels that :func:`predict_kernel` makes.

    Args:
        x: (N, C, H, W).
        large_kernel: As :func:`conv_attention` takes it.
        *predictor: The weights that :func:`predict_kernel` takes.
        symmetric: As :func:`conv_attention` takes it.
        backend: A name in :data:`BACKENDS`; chosen by the operator where it is None.

    Returns:
        A tensor shaped like ``x``.

    Raises:
        ValueError: The shapes do not fit together or the backend is unknown.
    """
    checks.predicted_conv_attention(x, large_kernel, *predictor)
    return _PREDICTED_BACKENDS.run(backend, x, large_kernel, *predictor, symmetric)


def _reference(x: Tensor, large_kernel: Tensor, dynamic_kernel: Tensor, symmetric: bool) -> Tensor:
    """The definition, image by image."""
    size = dynamic_kernel.shape[-1]
    images = [
        _large(image[None], large_kernel)
        + F.conv2d(image[None], kernel[:, None], padding=size // 2, groups=len(kernel))
        for image, kernel in zip(x, dynamic_kernel, strict=True)
    ]
    return torch.cat(images)


def _grouped(x: Tensor, large_kernel: Tensor, dynamic_kernel: Tensor, symmetric: bool) -> Tensor:
    """The small convolutions of a whole batch as groups of one convolution."""
    size = dynamic_kernel.shape[-1]
    kernels = dynamic_kernel.flatten(0, 1)[:, None]
    dynamic = F.conv2d(x.reshape(1, -1, *x.shape[2:]), kernels, padding=size // 2, groups=len(kernels))
    return _large(x, large_kernel) + dynamic.view(x.shape)


def _shifted(x: Tensor, large_kernel: Tensor, dynamic_kernel: Tensor, symmetric: bool) -> Tensor:
    """The small convolution as a sum of shifted products: exports with every size and batch dynamic."""
    size, (height, width) = dynamic_kernel.shape[-1], x.shape[2:]
    padded = F.pad(x, (size // 2,) * 4)
    out = _large(x, large_kernel)
    for i in range(size):
        for j in range(size):
            shifted = padded[:, :, i : i + height, j : j + width]
            out = out + shifted * dynamic_kernel[:, :, i, j, None, None]
    return out


def _large(x: Tensor, large_kernel: Tensor) -> Tensor:
    groups = x.shape[1] // large_kernel.shape[1]
    return F.conv2d(x, large_kernel, padding=large_kernel.shape[-1] // 2, groups=groups)


def _predict(
    x: Tensor, large_kernel: Tensor, *predictor_and_symmetric: Any
) -> tuple[Tensor, Tensor, Tensor, bool]:
    *predictor, symmetric = predictor_and_symmetric
    return x, large_kernel, predict_kernel(x, *predictor), symmetric


def _predicted_by_kernels(*args: Any) -> Tensor:
    return _predicted_cpu(*args[:-1])


def _exports(*args: Any) -> bool:
    return is_exporting()


def _is_dense(x: Tensor, large_kernel: Tensor) -> bool:
    return large_kernel.shape[1] == x.shape[1]


def _has_gradient(x: Tensor, large_kernel: Tensor, dynamic_kernel: Tensor, symmetric: bool) -> bool:
    return _is_dense(x, large_kernel) and (symmetric or not large_kernel.requires_grad)


def _suits_kernels(*args: Any) -> bool:
    has_gradient = _has_gradient(*args)
    return cpu.is_supported(*args) if has_gradient else cpu.is_supported_for_inference(*args)


_cpu = cpu.register(
    cpu.conv_attention, _grouped, gradient=cpu.gradients.conv_attention, has_gradient=_has_gradient
)
_predicted_cpu = cpu.register(cpu.predicted_conv_attention, lambda *args: _grouped(*_predict(*args, False)))

# Groups that depend on the batch cannot be exported; they are the fastest of torch's own operations.
BACKENDS = Backends(
    Backend("reference", _reference),
    Backend("shifted", _shifted, is_best=_exports),
    Backend("cpu", _cpu, is_best=_suits_kernels),
    Backend("grouped", _grouped),
    default=_grouped,
)

_PREDICTED_BACKENDS = BACKENDS.after(
    _predict, Backend("cpu", _predicted_by_kernels, is_best=cpu.is_supported_for_inference)
)
