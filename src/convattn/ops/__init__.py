"""The two operators of the network as plain functions on tensors."""

from .conv_attention import conv_attention
from .window_attention import window_attention

__all__ = ["conv_attention", "window_attention"]
