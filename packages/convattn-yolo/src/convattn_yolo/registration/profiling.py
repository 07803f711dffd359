"""Counts the convolutions with computed kernels, which Ultralytics' profiler misses."""

import sys
from typing import Any

__all__ = ["register_flops"]


def register_flops() -> None:
    """Give the profiler the rules of our layers, where there is a profiler."""
    try:
        import thop  # noqa: F401
    except ImportError:
        return
    from convattn.layers import ConvAttention, WindowAttention
    from convattn_yolo.blocks import StaticAttention

    rules = sys.modules["thop.profile"].register_hooks
    rules[ConvAttention] = _count_conv_attention
    rules[StaticAttention] = _count_large_kernel
    rules[WindowAttention] = _count_window_attention


def _count_conv_attention(layer: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _count_large_kernel(layer, inputs, output)
    layer.total_ops += output.numel() // output.shape[1] * layer.large_kernel_dim * layer.predictor.size**2


def _count_large_kernel(layer: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, large_kernel = inputs
    layer.total_ops += output.numel() // output.shape[1] * large_kernel.numel()


def _count_window_attention(layer: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Count linearly in the image's area; the profiler extrapolates from small images."""
    bias = layer.relative_position_bias
    window = (int(bias.shape[-1] ** 0.5) + 1) // 2
    layer.total_ops += 2 * output.numel() * window * window
