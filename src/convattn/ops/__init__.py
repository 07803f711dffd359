"""The two operators of the network as plain functions on tensors."""

from .conv_attention import conv_attention
from .padding import reflect_pad
from .window_attention import window_attention

__all__ = ["conv_attention", "reflect_pad", "window_attention"]
