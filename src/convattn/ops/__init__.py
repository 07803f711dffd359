"""The two operators of the network, and what lies between them, as plain functions on tensors."""

from convattn.ops.conv_attention import conv_attention, predict_kernel, predicted_conv_attention
from convattn.ops.convolution import convolution
from convattn.ops.feed_forward import FeedForwardWeights, feed_forward
from convattn.ops.padding import reflect_pad
from convattn.ops.pixel_shuffle import pixel_shuffle
from convattn.ops.window_attention import window_attention, window_self_attention

__all__ = [
    "FeedForwardWeights",
    "conv_attention",
    "convolution",
    "feed_forward",
    "pixel_shuffle",
    "predict_kernel",
    "predicted_conv_attention",
    "reflect_pad",
    "window_attention",
    "window_self_attention",
]
