"""An image in memory, with what its file says about it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["DEFAULT_RESOLUTION", "Image"]

DEFAULT_RESOLUTION = 72 / 25.4
"""Pixels per millimetre of an image whose file does not say it."""


@dataclass
class Image:
    """An image as stored in its file, turned upright.

    Attributes:
        pixels: (H, W, channels) in uint8 or uint16; the channels are grayscale, grayscale and alpha, RGB, or
            RGB and alpha. Colors are not multiplied by alpha.
        metadata: What else the file holds (ICC profile, EXIF, XMP, IPTC, comments, gain map), by libvips'
            names, each with its libvips type. :data:`~convattn.images.io.metadata.CICP` is ours.
        resolution: Pixels per millimetre, horizontally and vertically.
    """

    pixels: np.ndarray
    metadata: dict[str, tuple[int, Any]] = field(default_factory=dict)
    resolution: tuple[float, float] = (DEFAULT_RESOLUTION, DEFAULT_RESOLUTION)
