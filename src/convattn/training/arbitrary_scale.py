"""Training of the networks of arbitrary scale: L1 loss at points, with a random scale per sample.

Source: Lee and Jin, "Local Texture Estimator for Implicit Representation Function", CVPR 2022, section 4.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from convattn.images.resize import resize_bicubic
from convattn.training.classic import Training
from convattn.training.config import Recipe
from convattn.training.data import MARGIN, ImageFolder, PatchStream, Queries, QueryStream, to_input

__all__ = ["ArbitraryScaleTraining"]


class ArbitraryScaleTraining(Training):
    """Training of :class:`~convattn.models.esc_lte.ESCLTE`; see :class:`Training`."""

    stream_type = QueryStream

    def __init__(self, recipe: Recipe, network: nn.Module, images: ImageFolder) -> None:
        super().__init__(recipe, network, images)
        if recipe.compile:
            features: Any = network.features
            features.compile()

    @classmethod
    def smallest_image(cls, recipe: Recipe) -> int:
        """Return the smallest height and width of an image that a patch with margin can be cut from."""
        return recipe.scale * (recipe.patch_size + 2 * MARGIN)

    def stream(self, **settings: int) -> PatchStream:
        """Return the endless stream of :class:`~convattn.training.data.Queries`."""
        return super().stream(queries=self.recipe.queries, **settings)

    def make_pair(self, batch: Queries) -> Queries:
        """Convert patches and colors to float32 in [0, 1]."""
        return batch._replace(low=to_input(batch.low), colors=batch.colors.float() / 255)

    def trial_output(self, low: Tensor) -> Tensor:
        """Return the encoded features of low-resolution patches (N, 3, H, W)."""
        network: Any = self.network
        encoded: Tensor = network.encode(low)
        return encoded

    def loss(self, batch: Queries) -> Tensor:
        """Return the mean absolute error on RGB at the points, a scalar."""
        network: Any = self.network
        colors = network.query(network.encode(batch.low), batch.rows, batch.columns, batch.cell)
        return F.l1_loss(colors, batch.colors)

    def samples(self, batch: Queries, count: int) -> list[Tensor]:
        """Return images (count, 3, scale · P, scale · P): bicubic, and output of the EMA network."""
        low = batch.low[:count]
        size = self.recipe.scale * low.shape[2], self.recipe.scale * low.shape[3]
        return [resize_bicubic(low, size=size), self.average.module(low, size)]
