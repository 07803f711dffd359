"""ESC-Real, the network for real-world images.

Source: Lee, Yun and Ro, "Emulating Self-attention with Convolution for Efficient Image Super-Resolution",
ICCV 2025, section 4.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from convattn.layers import BodyConfig
from convattn.layers.execution import Execution
from convattn.models.features import WholeScaleNetwork
from convattn.models.upsamplers import DySample, NearestConvUpsampler
from convattn.ops import reflect_pad

__all__ = ["ESCReal", "ImageSkip"]


class ESCReal(WholeScaleNetwork):
    """Super-resolution of images with real-world degradation, as published ×4.

    Args:
        config: Hyper-parameters of the body.
        upsampler: Builds the upsampler from the number of feature channels.
    """

    scale: int

    def __init__(
        self,
        config: BodyConfig,
        *,
        upsampler: Callable[[int], NearestConvUpsampler | DySample] = NearestConvUpsampler,
    ) -> None:
        super().__init__(config)
        self.image_skip = ImageSkip(config.dim)
        self.upsampler = upsampler(config.dim)
        self.scale = self.upsampler.scale

    def execute(self, x: Tensor, *, run: Execution) -> Tensor:
        """Upscale images (N, 3, H, W) with the layers applied by ``run``."""
        features = run.enter(self.features, x)
        return run(self.upsampler, run(self.image_skip, x, residual=features))

    def widest_map(self, area: float) -> float:
        """See :class:`SuperResolutionNetwork`: the upsampler convolves features at the size of the result."""
        return self.upsampler.width * area


class ImageSkip(nn.Module):
    """Features straight from the image, past the blocks of ESC-Real.

    Args:
        dim: Channels of the features.
    """

    halo = 3

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 2 * dim, 1)
        self.depthwise = nn.Conv2d(2 * dim, 2 * dim, 7, groups=2 * dim)
        self.project = nn.Conv2d(2 * dim, dim, 1)

    def forward(self, x: Tensor, *, residual: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, dim, H, W), added to ``residual``."""
        x = reflect_pad(self.expand(x), left=3, right=3, top=3, bottom=3)
        return residual + self.project(F.leaky_relu(self.depthwise(x), 0.2))
