"""ESC+LTE, the network for arbitrary scales.

Source: Lee, Yun and Ro, "Emulating Self-attention with Convolution for Efficient Image Super-Resolution",
ICCV 2025, section 4; :mod:`convattn.models.lte`.
"""

import torch
from torch import Tensor

from convattn.layers import BodyConfig
from convattn.layers.execution import WHOLE_IMAGE, Execution, Points, with_halo
from convattn.models.features import SuperResolutionNetwork
from convattn.models.lte import LocalTextureEstimator, Texture
from convattn.ops.exporting import is_exporting

__all__ = ["ESCLTE"]


class ESCLTE(SuperResolutionNetwork):
    """Super-resolution at an arbitrary scale: a local texture estimator samples ESC features.

    Args:
        config: Hyper-parameters of the body.
        hidden: Width of the estimator.
    """

    scale = None
    largest_trained_scale = 4

    def __init__(self, config: BodyConfig, *, hidden: int = 256) -> None:
        super().__init__(config)
        self.estimator = LocalTextureEstimator(config.dim, hidden)

    def forward(self, x: Tensor, size: tuple[int, int], *, points_at_once: int | None = None) -> Tensor:
        """Upscale images to any size.

        Args:
            x: (N, 3, H, W) in [0, 1], any size from 1×1.
            size: Height and width of the result.
            points_at_once: Output pixels computed at a time, which bounds the memory; by default as many as
                suit the caches of a processor, or keep a GPU busy.

        Returns:
            (N, 3, *size), not clamped.
        """
        return self.execute(x, size, points_at_once=points_at_once, run=WHOLE_IMAGE)

    def execute(
        self, x: Tensor, size: tuple[int, int], *, points_at_once: int | None = None, run: Execution
    ) -> Tensor:
        """Upscale images (N, 3, H, W) to (N, 3, *size) with the layers applied by ``run``."""

        @with_halo(2)  # 1 for the nearest pixels and 1 for the convolution
        def render(features: Tensor, x: Tensor, points: Points) -> Tensor:
            texture = self.estimator.estimate(features, x)
            return self.render(texture, *points, points_at_once=points_at_once)

        x = run(_centered, x)
        return run.sample(render, run.enter(self.features, x), x, size=size)

    def render(
        self,
        texture: Texture,
        rows: Tensor,
        columns: Tensor,
        cell: Tensor,
        *,
        points_at_once: int | None = None,
    ) -> Tensor:
        """Colors (N, 3, H, W) where H rows and W columns cross; see :meth:`query`."""
        rows, columns = rows[None, :, None], columns[None, None]
        if is_exporting():  # the number of parts would depend on the size, which no graph can express
            return self.query(texture, rows, columns, cell).permute(0, 3, 1, 2)
        points_at_once = points_at_once or (2**13 if rows.device.type == "cpu" else 2**16)
        step = max(1, points_at_once // columns.numel())
        parts = [self.query(texture, part, columns, cell) for part in rows.split(step, 1)]
        return torch.cat(parts, 1).permute(0, 3, 1, 2)

    def encode(self, x: Tensor) -> Texture:
        """Return the texture of images (N, 3, H, W) in [0, 1], which :meth:`query` samples."""
        x = _centered(x)
        return self.estimator.estimate(self.features(x), x)

    def query(self, texture: Texture, rows: Tensor, columns: Tensor, cell: Tensor) -> Tensor:
        """Return colors in [0, 1], not clamped, at points of images.

        Args:
            texture: What :meth:`encode` returns for the images.
            rows: Vertical positions in pixels, see :class:`~convattn.models.lte.LocalTextureEstimator`.
            columns: Horizontal positions.
            cell: (N, 2) or (1, 2), height and width of an output pixel in pixels of the images.

        Returns:
            (N, …, 3).
        """
        # Beyond the scales of training, a pixel counts as large as at the largest of them.
        cell = cell.clamp(min=1 / self.largest_trained_scale)
        return (self.estimator(texture, rows, columns, cell) + 1) / 2

    def widest_map(self, area: float) -> float:
        """See :class:`SuperResolutionNetwork`: amplitudes and frequencies, or the colors of the result."""
        return max(2 * self.estimator.amplitude.out_channels, 3 * area)


@with_halo(0)
def _centered(x: Tensor) -> Tensor:
    """From [0, 1] to [−1, 1]."""
    return 2 * x - 1
