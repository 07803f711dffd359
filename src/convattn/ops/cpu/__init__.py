"""The operators by compiled kernels, on a CPU in float32 and bfloat16."""

from convattn.ops.cpu import gradients
from convattn.ops.cpu.operators import (
    conv_attention,
    convolution,
    feed_forward,
    pixel_shuffle,
    pointwise_into,
    predicted_conv_attention,
    window_attention,
    window_self_attention,
)
from convattn.ops.cpu.registration import (
    disabled,
    is_available,
    is_supported,
    is_supported_for_inference,
    lowered,
    register,
)

__all__ = [
    "conv_attention",
    "convolution",
    "disabled",
    "feed_forward",
    "gradients",
    "is_available",
    "is_supported",
    "is_supported_for_inference",
    "lowered",
    "pixel_shuffle",
    "pointwise_into",
    "predicted_conv_attention",
    "register",
    "window_attention",
    "window_self_attention",
]
