"""Modules made of the two operators."""

from .block import Block, ConvAttentionLayer
from .conv_attention import ConvAttention, FactoredConvAttention, KernelPredictor
from .feed_forward import ConvFFN
from .large_kernel import FactoredLargeKernel, LargeKernel, mean_over_symmetries
from .norm import LayerNorm2d
from .window_attention import WindowAttention

__all__ = [
    "Block",
    "ConvAttention",
    "ConvAttentionLayer",
    "ConvFFN",
    "FactoredConvAttention",
    "FactoredLargeKernel",
    "KernelPredictor",
    "LargeKernel",
    "LayerNorm2d",
    "WindowAttention",
    "mean_over_symmetries",
]
