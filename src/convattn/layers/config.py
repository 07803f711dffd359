"""The hyper-parameters that the blocks of a network and the body around them share."""

from dataclasses import dataclass
from fractions import Fraction

__all__ = ["BodyConfig"]


@dataclass(frozen=True, kw_only=True)
class BodyConfig:
    """Hyper-parameters of the body of an ESC network (ESC, section 4.1).

    Attributes:
        dim: Channels of the feature maps.
        large_kernel_dim: Channels that the shared large kernel mixes; the others pass unchanged.
        blocks: Number of blocks.
        layers: Convolutional attention layers in each block.
        window_size: Side of an attention window in pixels.
        heads: Attention heads; divides ``dim``.
        ffn_ratio: Expansion ratio of the feed-forward networks in the convolutional attention layers.
        first_ffn_ratio: Expansion ratio of the feed-forward network before each window attention.
        norm: Whether the convolutional attention layers normalize their input.
        factored: Whether the large kernel is factored and the last features are normalized (ESC-FP).
        large_kernel_size: Side of the large kernel in pixels, odd.
    """

    dim: int
    large_kernel_dim: int
    blocks: int
    layers: int
    window_size: int
    heads: int
    ffn_ratio: float | Fraction
    first_ffn_ratio: float | Fraction = 2.0
    norm: bool = False
    factored: bool = False
    large_kernel_size: int = 13
