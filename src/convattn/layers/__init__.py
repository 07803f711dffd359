"""Modules made of the two operators."""

from convattn.layers.block import Block, ConvAttentionLayer
from convattn.layers.conv_attention import ConvAttention, FactoredConvAttention, KernelPredictor
from convattn.layers.feed_forward import ConvFFN
from convattn.layers.large_kernel import FactoredLargeKernel, LargeKernel, mean_over_symmetries
from convattn.layers.norm import LayerNorm2d
from convattn.layers.window_attention import WindowAttention

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
