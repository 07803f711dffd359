"""How much of an image may be computed at once."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from convattn.inference.devices import free_memory
from convattn.inference.model import Model

__all__ = ["MemoryBudget"]

_ALWAYS_WHOLE = 256  # pixels a side; smaller images fit into any memory
_SHARE_FOR_IMAGES = 0.5
_SHARE_FOR_STRIPS = 0.25  # of free memory: for stored feature maps, and again for the computed region
_MOST_FOR_IMAGES = 2**32  # bytes on a CPU, where strips take less memory and little longer
_MOST_FOR_FEATURE_MAPS, _MOST_FOR_REGION = 2**30, 2**28  # bytes on a CPU; more makes it no faster


@dataclass(frozen=True)
class MemoryBudget:
    """The memory that upscaling may take on a device.

    Attributes:
        device: Where networks compute.
        divisor: How many times less memory than usual may be taken.
    """

    device: torch.device
    divisor: int = 1

    def largest_side(self, image: Tensor, size: tuple[int, int], model: Model) -> int:
        """Return the side in pixels of the largest square that may be computed at once.

        Args:
            image: Images (N, channels, H, W).
            size: Height and width of the results.
            model: The network.
        """
        height, width = image.shape[2:]
        if max(height, width) <= _ALWAYS_WHOLE:
            return _ALWAYS_WHOLE
        memory = free_memory(self.device) * _SHARE_FOR_IMAGES
        if model.by_layers is not None and self.device.type == "cpu":
            memory = min(memory, _MOST_FOR_IMAGES)
        result = 2 * 4 * 3 * math.prod(size) / (height * width)  # RGB in float32, twice
        pixels = int(memory / len(image) / (model.bytes_per_pixel + result))
        return max(height, width) if height * width <= pixels else math.isqrt(pixels)

    @property
    def region(self) -> int:
        """Bytes that computing a region of a strip may take."""
        share = int(free_memory(self.device) * _SHARE_FOR_STRIPS)
        return (min(share, _MOST_FOR_REGION) if self.device.type == "cpu" else share) // self.divisor

    def keeps(self, feature_maps: int) -> bool:
        """Return whether feature maps of so many bytes are kept in main memory, not in files."""
        share = free_memory(torch.device("cpu")) * _SHARE_FOR_STRIPS
        return feature_maps <= (min(share, _MOST_FOR_FEATURE_MAPS) if self.device.type == "cpu" else share)

    def smaller(self) -> "MemoryBudget":
        """A quarter of this budget."""
        return replace(self, divisor=4 * self.divisor)
