"""Local texture estimation: a feature map as a continuous image.

Source: Lee and Jin, "Local Texture Estimator for Implicit Representation Function", CVPR 2022. There a
image spans [−1, 1]; here positions are in its pixels, the first of which reaches from 0 to 1.
"""

import itertools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["LocalTextureEstimator", "Texture", "pixel_centers"]


class Texture(NamedTuple):
    """What is known of each pixel of N images, (N · H · W, …), and how they lie.

    Attributes:
        amplitude: Of the cosines and then the sines, (…, hidden).
        row_frequency: Along a column, (…, hidden / 2).
        column_frequency: Along a row, the same.
        color: Of the pixel itself, (…, 3).
        shape: N, H and W.
    """

    amplitude: Tensor
    row_frequency: Tensor
    column_frequency: Tensor
    color: Tensor
    shape: tuple[int, int, int]


class LocalTextureEstimator(nn.Module):
    """Color at any point: an MLP over the local frequencies that the features hold.

    Positions, and all that follows from them, are computed at least in float32, whatever the features are.

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
        """Texture of features (N, dim, H, W) of an image (N, 3, H, W)."""
        frequency = self.frequency(features).unflatten(1, (-1, 2))
        maps = self.amplitude(features), frequency[:, :, 0], frequency[:, :, 1], image
        batch, _, height, width = image.shape
        amplitude, down, across, color = (x.movedim(1, -1).flatten(0, 2).contiguous() for x in maps)
        return Texture(amplitude, down, across, color, (batch, height, width))

    def forward(self, texture: Texture, rows: Tensor, columns: Tensor, cell: Tensor) -> Tensor:
        """Colors at points: of the four nearest pixels each answers, the nearer the weightier.

        Args:
            texture: What :meth:`estimate` gives.
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
            answer = self.mlp(waves) + F.embedding(pixel, texture.color)
            color = color + (row.weight * column.weight)[..., None] * answer
        return color


class _Neighbor(NamedTuple):
    """The next pixel on one side of each position, how far it is, and how much it counts."""

    pixel: Tensor
    offset: Tensor
    weight: Tensor


def _neighbors(positions: Tensor, length: int, dtype: torch.dtype) -> list[_Neighbor]:
    """The pixels before and after each position; at the borders both are the outermost.

    Their weights are those of linear interpolation, so that in two dimensions each counts as much as the area
    between the point and the opposite pixel.
    """
    before = (positions - 0.5).floor()
    share = positions - 0.5 - before
    neighbors = []
    for index, weight in ((before, 1 - share), (before + 1, share)):
        index = index.clamp(0, length - 1)
        offset = positions - (index + 0.5)
        neighbors.append(_Neighbor(index.long(), offset.to(dtype), weight.to(dtype)))
    return neighbors


def pixel_centers(source: int, output: int, device: torch.device | str = "cpu") -> Tensor:
    """Where in an image the centers of the pixels of its upscaled image lie, along one side.

    Args:
        source: Pixels of the image.
        output: Pixels of the upscaled image.
        device: Where the result shall be.

    Returns:
        (output,) in pixels of the image, float64 where the device has it.
    """
    centers = (torch.arange(output, dtype=torch.float64) + 0.5) * (source / output)
    return centers.to(device, torch.float32 if torch.device(device).type == "mps" else torch.float64)
