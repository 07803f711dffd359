"""The block of an ESC network: one window attention, then several convolutional attentions."""

from torch import Tensor, nn

from convattn.layers.config import BodyConfig
from convattn.layers.conv_attention import ConvAttention, FactoredConvAttention
from convattn.layers.execution import WHOLE_IMAGE, Execution, with_halo
from convattn.layers.feed_forward import ConvFFN
from convattn.layers.fusion import Conv2d, LayerNorm2d, can_fuse, convolve
from convattn.layers.window_attention import WindowAttention

__all__ = ["Block", "ConvAttentionLayer"]

SharedKernel = Tensor | tuple[Tensor, Tensor]


class ConvAttentionLayer(nn.Module):
    """``x + ConvAttn(ConvFFN(LN(x)))``; without ``LN`` in the smaller networks.

    Args:
        config: Hyper-parameters of the network's body.
    """

    def __init__(self, config: BodyConfig) -> None:
        super().__init__()
        self.norm = LayerNorm2d(config.dim) if config.norm else None
        self.ffn = ConvFFN(config.dim, config.ffn_ratio)
        attention = FactoredConvAttention if config.factored else ConvAttention
        self.attention = attention(config.dim, config.large_kernel_dim, config.large_kernel_size)

    def forward(self, x: Tensor, large_kernel: SharedKernel, *, run: Execution = WHOLE_IMAGE) -> Tensor:
        """(N, C, H, W) and the shared kernel to the same shape."""
        x = run.store(x)
        features = run.store(run(self.ffn, x, norm=self.norm))
        average = run.average(features)
        # No one else holds the features, unless the execution, a hook or a replaced module does.
        overwrite = run.overwrites and can_fuse(*self.ffn.modules(), *self.attention.modules())
        return run(self.attention, features, large_kernel, average=average, residual=x, overwrite=overwrite)


class Block(nn.Module):
    """Window attention followed by convolutional attentions that emulate further ones (ESC, figure 3).

    Args:
        config: Hyper-parameters of the network's body.
    """

    def __init__(self, config: BodyConfig) -> None:
        super().__init__()
        dim = config.dim
        self.norm_ffn = LayerNorm2d(dim)
        self.ffn = ConvFFN(dim, config.first_ffn_ratio)
        self.norm_attention = LayerNorm2d(dim)
        self.attention = WindowAttention(dim, config.window_size, config.heads)
        self.layers = nn.ModuleList(ConvAttentionLayer(config) for _ in range(config.layers))
        self.norm_out = LayerNorm2d(dim)
        self.conv_out = Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor, large_kernel: SharedKernel, *, run: Execution = WHOLE_IMAGE) -> Tensor:
        """(N, C, H, W) and the shared kernel to the same shape."""
        skip = x
        x = run(self.ffn, x, norm=self.norm_ffn)
        x = run(self.attention, x, norm=self.norm_attention, residual=x)
        for layer in self.layers:
            x = run.enter(layer, x, large_kernel)
        return run.store(run(self.join, x, skip))

    @with_halo(1)
    def join(self, x: Tensor, skip: Tensor) -> Tensor:
        """Convolve the last layer's features and add the block's input, both (N, C, H, W)."""
        return convolve(self.conv_out, x, norm=self.norm_out, residual=skip)
