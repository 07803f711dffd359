"""The two operators of the network, and what lies between them, as plain functions on tensors."""

from .conv_attention import conv_attention, predict_kernel, predicted_conv_attention
from .convolution import convolution
from .feed_forward import feed_forward
from .padding import reflect_pad
from .window_attention import window_attention, window_self_attention

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
