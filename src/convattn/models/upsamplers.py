"""The upsamplers of ESC-Real: features to images."""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DySample", "NearestConvUpsampler"]


class NearestConvUpsampler(nn.Sequential):
    """Features to an image by repeated doubling, as in Real-ESRGAN (Wang et al., ICCVW 2021).

    Args:
        dim: Channels of the features.
        convs: Convolutions after each doubling; the published network has (1, 2), neosr's has (2, 2).
        width: Channels after the first convolution; by default ``dim``.

    Attributes:
        scale: How many times larger the image is.
        width: Channels of the widest feature map at the size of the image.
        halo: Input pixels around a region on which the result depends.
    """

    def __init__(self, dim: int, convs: Sequence[int] = (1, 2), width: int | None = None) -> None:
        width = width or dim
        channels = itertools.chain([dim], itertools.repeat(width))
        layers: list[nn.Module] = []
        for count in convs:
            layers.append(nn.Upsample(scale_factor=2))
            for _ in range(count):
                layers += [nn.Conv2d(next(channels), width, 3, padding=1), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Conv2d(width, 3, 3, padding=1))
        self.scale = 2 ** len(convs)
        self.width = width
        # Every convolution follows at least one doubling, so it reaches half an input pixel at most.
        self.halo = math.ceil((sum(convs) + 1) / 2)


class DySample(nn.Module):
    """Features to an image by sampling the features at learned offsets.

    Source: Liu et al., "Learning to Upsample by Learning to Sample", ICCV 2023, with dynamic scope.

    Args:
        dim: Channels of the features.
        scale: How many times larger the image is.
        groups: Groups of channels with offsets of their own; divides ``dim``.

    Attributes:
        width: Channels of the widest feature map at the size of the image.
    """

    start: Tensor

    def __init__(self, dim: int, scale: int = 4, groups: int = 4) -> None:
        super().__init__()
        self.scale = scale
        self.groups = groups
        self.width = dim
        self.offset = nn.Conv2d(dim, 2 * groups * scale**2, 1)
        self.scope = nn.Conv2d(dim, 2 * groups * scale**2, 1, bias=False)
        self.project = nn.Conv2d(dim, 3, 1)
        nn.init.trunc_normal_(self.offset.weight, std=0.02)
        nn.init.zeros_(self.scope.weight)
        # The offsets of bilinear interpolation: columns, then rows, in pixels of the features.
        places = (torch.arange(scale) + 0.5) / scale - 0.5
        rows, columns = torch.meshgrid(places, places, indexing="ij")
        start = torch.stack((columns, rows))[:, None].expand(2, groups, scale, scale)
        self.register_buffer("start", start.reshape(1, -1, 1, 1).clone())

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim, H, W) to (N, 3, scale · H, scale · W)."""
        # In float32: half precision cannot resolve single pixels of a large image.
        dtype = torch.promote_types(x.dtype, torch.float32)
        offset = F.pixel_shuffle(self.places(x), self.scale).unflatten(1, (2, self.groups)).to(dtype)
        rows, columns = (self._centers(n, offset) for n in x.shape[2:])
        place = torch.stack(
            (
                2 * (offset[:, 0] + columns) / x.shape[3] - 1,
                2 * (offset[:, 1] + rows[:, None]) / x.shape[2] - 1,
            ),
            -1,
        ).flatten(0, 1)
        features = x.unflatten(1, (self.groups, -1)).flatten(0, 1).to(dtype)
        read = F.grid_sample(features, place, padding_mode="border", align_corners=False)
        return self.project(read.unflatten(0, (-1, self.groups)).flatten(1, 2).to(x.dtype))

    def halo_of(self, x: Tensor) -> int:
        """Input pixels around a region (N, dim, H, W) on which its result depends."""
        return math.ceil(self.places(x).abs().max()) + 1

    def places(self, x: Tensor) -> Tensor:
        """Offsets (N, 2 · groups · scale², H, W) from the input pixel that contains the output pixel."""
        return self.start + self.offset(x) * self.scope(x).sigmoid() / 2

    def _centers(self, count: int, like: Tensor) -> Tensor:
        """For each output row or column, the center of the input pixel that contains it."""
        centers = torch.arange(count, device=like.device, dtype=like.dtype) + 0.5
        return centers.repeat_interleave(self.scale)
