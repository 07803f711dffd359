"""Local texture estimation: a feature map as a continuous picture.

Source: Lee and Jin, "Local Texture Estimator for Implicit Representation Function", CVPR 2022.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["LocalTextureEstimator", "pixel_centres"]


class LocalTextureEstimator(nn.Module):
    """Colour at any point: an MLP over the local frequencies that the features hold.

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

    def estimate(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Amplitudes and frequencies, each (N, hidden, H, W), of features (N, dim, H, W)."""
        return self.amplitude(features), self.frequency(features)

    def forward(self, texture: tuple[Tensor, Tensor], points: Tensor, cell: Tensor) -> Tensor:
        """Colours at points, each an average of the four nearest features' answers.

        Args:
            texture: Amplitudes and frequencies as :meth:`estimate` gives them.
            points: (N, Q, 2), rows before columns, the picture spanning [−1, 1].
            cell: (N, 2), height and width of an output pixel in the same unit.

        Returns:
            (N, Q, 3), to be added to the interpolated picture.
        """
        amplitude, frequency = texture
        height, width = amplitude.shape[2:]
        size = points.new_tensor((height, width))
        centres = pixel_centres(height, width, points).movedim(-1, 0).expand(len(points), -1, -1, -1)
        phase = self.phase(cell * size)[:, None]
        colours, areas = [], []
        for corner in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            shifted = points + points.new_tensor(corner) / size + 1e-6
            nearest = shifted.clamp(-1 + 1e-6, 1 - 1e-6)
            offset = (points - _look_up(centres, nearest)) * size
            colours.append(self._answer(amplitude, frequency, phase, nearest, offset))
            areas.append(offset.prod(-1).abs() + 1e-9)
        # Each answer weighs as much as the area between the point and the opposite feature.
        weights = torch.stack(areas[::-1]) / sum(areas)
        return (torch.stack(colours) * weights[..., None]).sum(0)

    def _answer(
        self, amplitude: Tensor, frequency: Tensor, phase: Tensor, nearest: Tensor, offset: Tensor
    ) -> Tensor:
        frequencies = _look_up(frequency, nearest).unflatten(-1, (-1, 2))
        angle = math.pi * ((frequencies * offset[:, :, None]).sum(-1) + phase)
        waves = torch.cat((angle.cos(), angle.sin()), -1)
        return self.mlp(_look_up(amplitude, nearest) * waves)


def pixel_centres(height: int, width: int, like: Tensor) -> Tensor:
    """Centres of the pixels of a picture that spans [−1, 1].

    Args:
        height: Rows.
        width: Columns.
        like: Gives device and dtype.

    Returns:
        (height, width, 2), rows before columns.
    """
    rows, columns = (
        (2 * torch.arange(n, device=like.device, dtype=like.dtype) + 1) / n - 1 for n in (height, width)
    )
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1)


def _look_up(features: Tensor, points: Tensor) -> Tensor:
    """(N, C, H, W) at points (N, Q, 2) to (N, Q, C), from the nearest pixel."""
    grid = points.flip(-1)[:, None]
    return F.grid_sample(features, grid, mode="nearest", align_corners=False)[:, :, 0].transpose(1, 2)
