"""The block of an ESC network: one window attention, then several convolutional attentions."""

from torch import Tensor, nn

from convattn.layers.conv_attention import ConvAttention, FactoredConvAttention
from convattn.layers.feed_forward import ConvFFN
from convattn.layers.norm import LayerNorm2d
from convattn.layers.plain import convolve
from convattn.layers.window_attention import WindowAttention

__all__ = ["Block", "ConvAttentionLayer"]

SharedKernel = Tensor | tuple[Tensor, Tensor]


class ConvAttentionLayer(nn.Module):
    """``x + ConvAttn(ConvFFN(LN(x)))``.

    Args:
        dim: Channels in and out.
        large_kernel_dim: Channels that the large kernel mixes.
        ffn_ratio: Hidden channels of the feed-forward network a channel.
        norm: Whether to normalize first; the smaller networks do not.
        factored: Whether the large kernel is factored (ESC-FP).
    """

    def __init__(
        self, dim: int, large_kernel_dim: int, *, ffn_ratio: float, norm: bool, factored: bool
    ) -> None:
        super().__init__()
        self.norm = LayerNorm2d(dim) if norm else nn.Identity()
        self.ffn = ConvFFN(dim, ffn_ratio)
        attention = FactoredConvAttention if factored else ConvAttention
        self.attention = attention(dim, large_kernel_dim)

    def forward(self, x: Tensor, large_kernel: SharedKernel) -> Tensor:
        """(N, C, H, W) and the shared kernel to the same shape."""
        return self.attention(self.ffn(x, norm=self.norm), large_kernel, residual=x)


class Block(nn.Module):
    """Window attention followed by convolutional attentions that emulate further ones (ESC, figure 3).

    Args:
        dim: Channels in and out.
        large_kernel_dim: Channels that the large kernel mixes.
        layers: How many convolutional attention layers.
        window_size: Side of an attention window in pixels.
        heads: Attention heads.
        ffn_ratio: Hidden channels of the layers' feed-forward networks a channel.
        first_ffn_ratio: The same of the feed-forward network before the window attention.
        norm: Whether the layers normalize.
        factored: Whether the large kernel is factored (ESC-FP).
    """

    def __init__(
        self,
        dim: int,
        large_kernel_dim: int,
        *,
        layers: int,
        window_size: int,
        heads: int,
        ffn_ratio: float,
        first_ffn_ratio: float = 2.0,
        norm: bool = False,
        factored: bool = False,
    ) -> None:
        super().__init__()
        self.norm_ffn = LayerNorm2d(dim)
        self.ffn = ConvFFN(dim, first_ffn_ratio)
        self.norm_attention = LayerNorm2d(dim)
        self.attention = WindowAttention(dim, window_size, heads)
        self.layers = nn.ModuleList(
            ConvAttentionLayer(dim, large_kernel_dim, ffn_ratio=ffn_ratio, norm=norm, factored=factored)
            for _ in range(layers)
        )
        self.norm_out = LayerNorm2d(dim)
        self.conv_out = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor, large_kernel: SharedKernel) -> Tensor:
        """(N, C, H, W) and the shared kernel to the same shape."""
        skip = x
        x = self.ffn(x, norm=self.norm_ffn)
        x = self.attention(x, norm=self.norm_attention, residual=x)
        for layer in self.layers:
            x = layer(x, large_kernel)
        return convolve(self.conv_out, x, norm=self.norm_out, residual=skip)
