"""Local texture estimation: a feature map as a continuous image.

Source: Lee and Jin, "Local Texture Estimator for Implicit Representation Function", CVPR 2022. There an
image spans [−1, 1]; here positions are in its pixels, the first of which spans 0 to 1.
"""

import itertools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["LocalTextureEstimator", "Texture"]


class Texture(NamedTuple):
    """The estimated texture of every pixel of N images; each tensor has N · H · W rows.

    Attributes:
        amplitude: Amplitudes of the cosines and then of the sines, (N · H · W, hidden).
        row_frequency: Vertical frequencies, (N · H · W, hidden / 2).
        column_frequency: Horizontal frequencies, (N · H · W, hidden / 2).
        color: Color of the pixel itself, (N · H · W, 3).
        shape: N, H and W.
    """

    amplitude: Tensor
    row_frequency: Tensor
    column_frequency: Tensor
    color: Tensor
    shape: tuple[int, int, int]


class LocalTextureEstimator(nn.Module):
    """Color at any point: an MLP over the local frequencies that the features encode.

    Positions and phases are computed in float32 at least, whatever the precision of the features.

    Args:
        dim: Channels of the features.
        hidden: Width of the estimator and of its MLP, even.
    """

    def __init__(self, dim: int, hidden: int = 256) -> None:
        super().__init__()
        self.amplitude = nn.Conv2d(dim, hidden, 3, padding=1)
        self.frequency = nn.Conv2d(dim, hidden, 3, padding=1)
        self.phase = nn.Linear(2, hidden // 2, bias=False)
        self.mlp = nn.Sequential(
            *(nn.Linear(hidden, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU()),
            nn.Linear(hidden, 3),
        )

    def estimate(self, features: Tensor, image: Tensor) -> Texture:
        """Return the texture of images (N, 3, H, W) with features (N, dim, H, W)."""
        frequency = self.frequency(features).unflatten(1, (-1, 2))
        maps = self.amplitude(features), frequency[:, :, 0], frequency[:, :, 1], image
        batch, _, height, width = image.shape
        amplitude, down, across, color = (x.movedim(1, -1).flatten(0, 2).contiguous() for x in maps)
        return Texture(amplitude, down, across, color, (batch, height, width))

    def forward(self, texture: Texture, rows: Tensor, columns: Tensor, cell: Tensor) -> Tensor:
        """Return colors at points: the mean of what the four nearest pixels predict, weighted by nearness.

        Args:
            texture: What :meth:`estimate` returns.
            rows: Positions of the points from top to bottom, in pixels of the image; together with
                ``columns`` broadcast to (N, …) or (1, …).
            columns: Positions from left to right.
            cell: Height and width of an output pixel in pixels of the image, (N, 2) or (1, 2).

        Returns:
            (N, …, 3).
        """
        batch, height, width = texture.shape
        points = [1] * (max(rows.ndim, columns.ndim) - 1)
        precise = torch.promote_types(texture.amplitude.dtype, torch.float32)
        neighbors = _neighbors(rows, height, precise), _neighbors(columns, width, precise)
        first = torch.arange(batch, device=rows.device).reshape(-1, *points) * (height * width)
        # Times 2, here and below, since a pixel of an image that spans [-1, 1] is 2 / size long.
        phase = (2 * cell.to(precise)[:, None] * self.phase.weight).sum(-1).reshape(len(cell), *points, -1)
        color = texture.color.new_zeros(())
        for row, column in itertools.product(*neighbors):
            pixel = first + (row.pixel * width + column.pixel)
            down = F.embedding(pixel, texture.row_frequency) * (2 * row.offset[..., None])
            across = F.embedding(pixel, texture.column_frequency) * (2 * column.offset[..., None])
            angle = math.pi * (down + across + phase)
            amplitude = F.embedding(pixel, texture.amplitude)
            waves = amplitude * torch.cat((angle.cos(), angle.sin()), -1).to(amplitude.dtype)
            prediction = self.mlp(waves) + F.embedding(pixel, texture.color)
            color = color + (row.weight * column.weight)[..., None] * prediction
        return color


class _Neighbor(NamedTuple):
    """The next pixel on one side of each position, its distance in pixels, and its weight."""

    pixel: Tensor
    offset: Tensor
    weight: Tensor


def _neighbors(positions: Tensor, length: int, dtype: torch.dtype) -> list[_Neighbor]:
    """The pixels before and after each position; at the borders both are the outermost pixel.

    The weights are those of linear interpolation: in two dimensions, the area between the point and the
    opposite pixel.
    """
    before = (positions - 0.5).floor()
    share = positions - 0.5 - before
    neighbors = []
    for index, weight in ((before, 1 - share), (before + 1, share)):
        index = index.clamp(0, length - 1)
        offset = positions - (index + 0.5)
        neighbors.append(_Neighbor(index.long(), offset.to(dtype), weight.to(dtype)))
    return neighbors
