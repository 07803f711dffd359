"""The body that all ESC networks share, and what they all state about themselves."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from convattn.layers import Block, BodyConfig, Conv2d, FactoredLargeKernel, LargeKernel, LayerNorm2d
from convattn.layers.execution import WHOLE_IMAGE, Execution, with_halo
from convattn.layers.fusion import convolve
from convattn.models.memory import bytes_per_pixel

__all__ = ["Features", "SuperResolutionNetwork", "WholeScaleNetwork"]


class Features(nn.Module):
    """The body of every ESC network: images to deep features plus shallow ones.

    Args:
        config: Hyper-parameters.
    """

    def __init__(self, config: BodyConfig) -> None:
        super().__init__()
        dim = config.dim
        self.dim = dim
        self.window_size = config.window_size
        self.shallow = Conv2d(3, dim, 3, padding=1)
        kernel = FactoredLargeKernel if config.factored else LargeKernel
        self.large_kernel = kernel(config.large_kernel_dim, config.large_kernel_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = LayerNorm2d(dim) if config.factored else None
        self.deep = Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor, *, run: Execution = WHOLE_IMAGE) -> Tensor:
        """(N, 3, H, W) to (N, dim, H, W)."""
        image, x = x, run(self.embed, x)
        large_kernel = self.large_kernel()
        for block in self.blocks:
            x = run.enter(block, x, large_kernel)
        return run(self.join, x, image)

    @with_halo(1)
    def embed(self, x: Tensor) -> Tensor:
        """Shallow features (N, dim, H, W) of images (N, 3, H, W)."""
        return convolve(self.shallow, x)

    @with_halo(2)
    def join(self, x: Tensor, image: Tensor) -> Tensor:
        """Convolve the last block's features (N, dim, H, W) and add the shallow ones of (N, 3, H, W).

        Computing shallow features twice takes a hundredth of a block's time, and a map less of memory.
        """
        return convolve(self.deep, x, norm=self.norm, residual=self.embed(image))

    @property
    def widest(self) -> int:
        """Channels of the widest layer."""
        return max(layer.out_channels for layer in self.modules() if isinstance(layer, nn.Conv2d))


class SuperResolutionNetwork(nn.Module):
    """A network that upscales RGB images, and what a caller needs to know to run it.

    Args:
        config: Hyper-parameters of the body.

    Attributes:
        execute: The method that ``forward`` calls: its arguments, and ``run``, which applies the layers.
        scale: How many times larger the result is; None where any scale can be requested.
        channels: Channels of images and results.
        dtypes: Precisions it computes well in.
        memory_format: Memory layout in which it is fastest.
    """

    execute: Callable[..., Any]
    scale: int | None = None
    channels = 3
    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    memory_format: ClassVar = torch.channels_last

    def __init__(self, config: BodyConfig) -> None:
        super().__init__()
        self.features = Features(config)

    @property
    def window_size(self) -> int:
        """Side in pixels of the windows that images are divided into, from the upper left corner."""
        return self.features.window_size

    @property
    def by_layers(self) -> "SuperResolutionNetwork":
        """The network whose layers can be applied one by one: itself."""
        return self

    @property
    def bytes_per_pixel(self) -> float:
        """Memory that a forward pass takes for a pixel of its input, estimated."""
        largest = max(self.features.dim, self.widest_map((self.scale or 1) ** 2))
        return bytes_per_pixel(largest)

    def widest_map(self, area: float) -> float:
        """Return the size of the largest feature map after the body, in channels for each input pixel.

        Args:
            area: Output pixels for each input pixel.
        """
        return 3 * area


class WholeScaleNetwork(SuperResolutionNetwork):
    """A network for one whole scale; takes the arguments of :class:`SuperResolutionNetwork`."""

    scale: int

    def forward(self, x: Tensor) -> Tensor:
        """Upscale images.

        Args:
            x: (N, 3, H, W) in [0, 1], any size from 1×1.

        Returns:
            (N, 3, scale · H, scale · W), not clamped.
        """
        return self.execute(x, run=WHOLE_IMAGE)
