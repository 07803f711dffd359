"""Modules made of the operators."""

from convattn.layers.block import Block, ConvAttentionLayer
from convattn.layers.config import BodyConfig
from convattn.layers.conv_attention import ConvAttention, FactoredConvAttention, KernelPredictor
from convattn.layers.feed_forward import ConvFFN
from convattn.layers.fusion import Conv2d, LayerNorm2d
from convattn.layers.large_kernel import FactoredLargeKernel, LargeKernel, mean_over_symmetries
from convattn.layers.window_attention import WindowAttention

__all__ = [
    "Block",
    "BodyConfig",
    "Conv2d",
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
