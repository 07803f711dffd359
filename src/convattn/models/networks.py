"""The super-resolution networks of the ESC paper, and one of our own.

Source: Lee, Yun and Ro, "Emulating Self-attention with Convolution for Efficient Image Super-Resolution",
ICCV 2025, sections 3 and 4.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convattn.errors import InputError
from convattn.layers import Block, FactoredLargeKernel, LargeKernel, LayerNorm2d
from convattn.layers.plain import convolve
from convattn.models.lte import LocalTextureEstimator, Texture, pixel_centers
from convattn.models.upsamplers import DySample, NearestConvUpsampler
from convattn.ops import reflect_pad
from convattn.ops.exporting import is_exporting

__all__ = [
    "ANY_SCALE_NETWORKS",
    "ESC",
    "ESCLTE",
    "NAMES",
    "NETWORKS",
    "REAL_NETWORKS",
    "ESCReal",
    "Features",
    "build",
]


class Features(nn.Module):
    """The body of every ESC network: an image to deep features plus shallow ones.

    Args:
        dim: Channels.
        large_kernel_dim: Channels that the shared large kernel mixes.
        blocks: How many blocks.
        layers: Convolutional attention layers a block.
        window_size: Side of an attention window in pixels.
        heads: Attention heads.
        ffn_ratio: Hidden channels of the layers' feed-forward networks a channel.
        first_ffn_ratio: The same of the feed-forward network before each window attention.
        norm: Whether the layers normalize.
        factored: Whether the large kernel is factored and the deep features are normalized (ESC-FP).
        large_kernel_size: Side of the large kernel, odd.
    """

    def __init__(
        self,
        *,
        dim: int,
        large_kernel_dim: int,
        blocks: int,
        layers: int,
        window_size: int,
        heads: int,
        ffn_ratio: float,
        first_ffn_ratio: float = 2.0,
        norm: bool = False,
        factored: bool = False,
        large_kernel_size: int = 13,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.window_size = window_size
        self.shallow = nn.Conv2d(3, dim, 3, padding=1)
        self.large_kernel = (FactoredLargeKernel if factored else LargeKernel)(
            large_kernel_dim, large_kernel_size
        )
        self.blocks = nn.ModuleList(
            Block(
                dim,
                large_kernel_dim,
                layers=layers,
                window_size=window_size,
                heads=heads,
                ffn_ratio=ffn_ratio,
                first_ffn_ratio=first_ffn_ratio,
                norm=norm,
                factored=factored,
            )
            for _ in range(blocks)
        )
        self.norm = LayerNorm2d(dim) if factored else nn.Identity()
        self.deep = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, dim, H, W)."""
        shallow = x = convolve(self.shallow, x)
        large_kernel = self.large_kernel()
        for block in self.blocks:
            x = block(x, large_kernel)
        return convolve(self.deep, x, norm=self.norm, residual=shallow)


class ESC(nn.Module):
    """Classic super-resolution at one whole scale.

    Args:
        scale: How many times larger the result is.
        image_skip: How the image itself is upscaled before the residual is added: "nearest" or, in
            ESC-FP, "bicubic".
        **features: See :class:`Features`.
    """

    def __init__(self, *, scale: int, image_skip: str = "nearest", **features: Any) -> None:
        super().__init__()
        self.scale = scale
        self.image_skip = image_skip
        self.features = Features(**features)
        self.to_image = nn.Conv2d(self.features.dim, 3 * scale**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale images.

        Args:
            x: (N, 3, H, W) in [0, 1], any size from 1×1.

        Returns:
            (N, 3, scale · H, scale · W), not clamped.
        """
        return self.reconstruct(self.features(x), x)

    def reconstruct(self, features: Tensor, x: Tensor) -> Tensor:
        """Features (N, dim, H, W) and the images they are of to upscaled images."""
        residual = F.pixel_shuffle(convolve(self.to_image, features), self.scale)
        # In place, since these are the largest maps of all.
        return residual.add_(F.interpolate(x, scale_factor=self.scale, mode=self.image_skip))


class ESCReal(nn.Module):
    """Super-resolution of images with real-world faults, as published ×4.

    Args:
        upsampler: Builds what turns features of the given channels into the image.
        **features: See :class:`Features`.
    """

    def __init__(
        self,
        *,
        upsampler: Callable[[int], NearestConvUpsampler | DySample] = NearestConvUpsampler,
        **features: Any,
    ) -> None:
        super().__init__()
        self.features = Features(**features)
        self.image_skip = ImageSkip(self.features.dim)
        self.upsampler = upsampler(self.features.dim)
        self.scale = self.upsampler.scale

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, 3, scale · H, scale · W), not clamped."""
        return self.upsampler(self.features(x) + self.image_skip(x))


class ImageSkip(nn.Module):
    """Features straight from the image, past the blocks of ESC-Real.

    Args:
        dim: Channels of the features.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 2 * dim, 1)
        self.depthwise = nn.Conv2d(2 * dim, 2 * dim, 7, groups=2 * dim)
        self.project = nn.Conv2d(2 * dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, dim, H, W)."""
        x = reflect_pad(self.expand(x), left=3, right=3, top=3, bottom=3)
        return self.project(F.leaky_relu(self.depthwise(x), 0.2))


class ESCLTE(nn.Module):
    """Super-resolution at any scale: ESC features read by a local texture estimator.

    Args:
        hidden: Width of the estimator.
        **features: See :class:`Features`.
    """

    scale = None
    largest_trained_scale = 4

    def __init__(self, *, hidden: int = 256, **features: Any) -> None:
        super().__init__()
        self.features = Features(**features)
        self.estimator = LocalTextureEstimator(self.features.dim, hidden)

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
        sides = x.shape[2:]
        rows, columns = (pixel_centers(*pair, x.device) for pair in zip(sides, size, strict=True))
        cell = torch.tensor([[source / output for source, output in zip(sides, size, strict=True)]])
        return self.render(self.encode(x), rows, columns, cell.to(x.device), points_at_once=points_at_once)

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
        if is_exporting():  # a graph has no number of parts that depends on the size
            return self.query(texture, rows, columns, cell).permute(0, 3, 1, 2)
        points_at_once = points_at_once or (2**13 if rows.device.type == "cpu" else 2**16)
        step = max(1, points_at_once // columns.numel())
        parts = [self.query(texture, part, columns, cell) for part in rows.split(step, 1)]
        return torch.cat(parts, 1).permute(0, 3, 1, 2)

    def encode(self, x: Tensor) -> Texture:
        """What :meth:`query` reads of images (N, 3, H, W) in [0, 1]."""
        return self.estimator.estimate(self.features(2 * x - 1), 2 * x - 1)

    def query(self, texture: Texture, rows: Tensor, columns: Tensor, cell: Tensor) -> Tensor:
        """Colors in [0, 1], not clamped, at points of images.

        Args:
            texture: What :meth:`encode` gave for the images.
            rows: Positions in pixels, see :class:`~convattn.models.lte.LocalTextureEstimator`.
            columns: The same.
            cell: (N, 2) or (1, 2), height and width of an output pixel in pixels of the images.

        Returns:
            (N, …, 3).
        """
        # Beyond the scales of training a pixel is taken for as large as at the largest of them.
        cell = cell.clamp(min=1 / self.largest_trained_scale)
        return (self.estimator(texture, rows, columns, cell) + 1) / 2


_ESC: dict[str, Any] = dict(
    dim=64, large_kernel_dim=16, blocks=5, layers=5, window_size=32, heads=4, ffn_ratio=1.25
)
_NANO: dict[str, Any] = dict(
    dim=32, large_kernel_dim=8, blocks=2, layers=3, window_size=8, heads=2, ffn_ratio=1.25
)


_SMALL: dict[str, Any] = _ESC | dict(blocks=3, layers=4, window_size=16)


def _esc(scale: int, **changes: Any) -> ESC:
    return ESC(scale=scale, **(_ESC | changes))


def _esc_fp(scale: int) -> ESC:
    changes = dict(dim=48, heads=3, first_ffn_ratio=1.5, norm=True, factored=True)
    return ESC(scale=scale, image_skip="bicubic", **(_ESC | changes))


def _esc_xl(scale: int) -> ESC:
    return _esc(scale, dim=192, large_kernel_dim=48, blocks=8, window_size=48, heads=12, norm=True)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "esc": _esc,
    "esc-light": lambda scale: _esc(scale, blocks=3),
    "esc-fp": _esc_fp,
    "esc-xl": _esc_xl,
    "esc-nano": lambda scale: ESC(scale=scale, **_NANO),
}
"""Builders of the classic networks by name, each taking the scale."""

REAL_NETWORKS: dict[str, Callable[[], ESC | ESCReal]] = {
    "esc-real": lambda: ESCReal(**(_ESC | dict(blocks=10, ffn_ratio=2, norm=True))),
    "esc-nano-real": lambda: ESCReal(upsampler=partial(NearestConvUpsampler, width=16), **_NANO),
    "esc-small-real": lambda: ESC(scale=4, **_SMALL),
}
"""Builders of the networks for images with real-world faults by name."""

ANY_SCALE_NETWORKS: dict[str, Callable[[], ESCLTE]] = {
    "esc-lte": lambda: ESCLTE(**_ESC),
    "esc-nano-lte": lambda: ESCLTE(hidden=64, **_NANO),
}
"""Builders of the networks of any scale by name."""

NAMES = (*NETWORKS, *REAL_NETWORKS, *ANY_SCALE_NETWORKS)
"""Every name that :func:`build` knows."""


def build(name: str, scale: int | None = None) -> nn.Module:
    """Build an untrained network.

    Args:
        name: One of :data:`NAMES`.
        scale: How many times larger the result is; needed by the classic networks, without meaning for those
            of any scale.

    Raises:
        InputError: There is no such network, or it cannot be had at that scale.
    """
    if name in ANY_SCALE_NETWORKS:
        return ANY_SCALE_NETWORKS[name]()
    if name in REAL_NETWORKS:
        network = REAL_NETWORKS[name]()
        if scale not in (None, network.scale):
            raise InputError(f"{name} upscales by {network.scale} only, not by {scale}.")
        return network
    if name not in NETWORKS:
        raise InputError(f"There is no network named {name!r}; there are {', '.join(NAMES)}.")
    if scale is None or scale < 1:
        raise InputError(f"{name} needs a whole scale such as 2, 3 or 4, not {scale}.")
    return NETWORKS[name](scale)
