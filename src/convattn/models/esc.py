"""ESC, the classic network for one whole scale.

Source: Lee, Yun and Ro, "Emulating Self-attention with Convolution for Efficient Image Super-Resolution",
ICCV 2025, sections 3 and 4.
"""

import torch.nn.functional as F
from torch import Tensor

from convattn.layers import BodyConfig, Conv2d
from convattn.layers.execution import Execution, with_halo
from convattn.layers.fusion import convolve
from convattn.models.features import WholeScaleNetwork
from convattn.ops import pixel_shuffle

__all__ = ["ESC"]


class ESC(WholeScaleNetwork):
    """Classic super-resolution at one whole scale.

    Args:
        config: Hyper-parameters of the body.
        scale: How many times larger the result is.
        image_skip: How the image itself is upscaled before the residual is added: "nearest" or, in
            ESC-FP, "bicubic".
    """

    def __init__(self, config: BodyConfig, *, scale: int, image_skip: str = "nearest") -> None:
        super().__init__(config)
        self.scale = scale
        self.image_skip = image_skip
        self.to_image = Conv2d(config.dim, 3 * scale**2, 3, padding=1)

    def execute(self, x: Tensor, *, run: Execution) -> Tensor:
        """Upscale images (N, 3, H, W) with the layers applied by ``run``."""
        return run(self.reconstruct, run.enter(self.features, x), x)

    @with_halo(2)  # of bicubic interpolation; the convolution has 1
    def reconstruct(self, features: Tensor, x: Tensor) -> Tensor:
        """Upscale images (N, 3, H, W) given their features (N, dim, H, W)."""
        subpixels = convolve(self.to_image, features)
        if self.image_skip == "nearest":
            return pixel_shuffle(subpixels, self.scale, x)
        skip = F.interpolate(x, scale_factor=self.scale, mode=self.image_skip)
        return pixel_shuffle(subpixels, self.scale).add_(skip)
