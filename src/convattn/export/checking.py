"""Comparing an exported network with torch, at sizes that were not traced."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convattn.errors import InputError
from convattn.images.io import find_images, read_rgb
from convattn.runtimes.exported import ExportedNetwork

__all__ = ["PRECISIONS", "Agreement", "calibration_images", "compare", "probe_images", "window_of"]

PRECISIONS = {"fp32": 1e-4, "fp16": 1 / 255, "int8": 0.02}
"""Allowed difference from torch for each precision: for int8 in root mean square, otherwise at any pixel."""

_CALIBRATION_SIDE = 128  # pixels of the center of each image
_MOST_CALIBRATED = 100  # images


@dataclass(frozen=True)
class Agreement:
    """How close an exported network is to torch.

    Attributes:
        largest: Largest difference, for images in [0, 1].
        rms: Root mean square difference.
        tolerance: Of the precision, see :data:`PRECISIONS`.
        shapes: Shapes of the compared images.
    """

    largest: float
    rms: float
    tolerance: float
    shapes: list[tuple[int, ...]]


@torch.inference_mode()
def compare(
    network: nn.Module, exported: ExportedNetwork, precision: str, images: Sequence[Tensor]
) -> Agreement:
    """Compare what an exported network and torch compute.

    Args:
        network: In torch.
        exported: The same network in another runtime.
        precision: A key of :data:`PRECISIONS`.
        images: (N, 3, H, W) in [0, 1].

    Raises:
        InputError: The difference exceeds the tolerance.
    """
    differences = torch.cat([(exported(x) - network(x)).flatten() for x in images]).double()
    agreement = Agreement(
        largest=differences.abs().max().item(),
        rms=differences.square().mean().sqrt().item(),
        tolerance=PRECISIONS[precision],
        shapes=[tuple(x.shape) for x in images],
    )
    reached = agreement.rms if precision == "int8" else agreement.largest
    if not reached <= agreement.tolerance:  # also true for NaN
        raise InputError(
            f"The export differs from torch by {reached:.1e}, more than {agreement.tolerance:.1e}, and was "
            "not kept; try another format or precision."
        )
    return agreement


def probe_images(network: nn.Module) -> list[Tensor]:
    """Return smooth random images (N, 3, H, W): of odd size, smaller than a window, a whole window."""
    window = window_of(network)
    random = torch.Generator().manual_seed(0)
    return [
        F.interpolate(torch.rand(batch, 3, 4, 4, generator=random), (height, width), mode="bilinear")
        for batch, height, width in [(2, window + 5, 2 * window - 3), (1, 5, 3), (1, window, window)]
    ]


def calibration_images(folder: str | os.PathLike[str]) -> list[Tensor]:
    """Return the centers of the first images of a folder, (1, 3, h, w) in [0, 1]."""
    images = (read_rgb(path) / 255 for path in find_images(folder)[:_MOST_CALIBRATED])
    return [_center(image)[None] for image in images]


def _center(image: Tensor) -> Tensor:
    top, left = (max(side - _CALIBRATION_SIDE, 0) // 2 for side in image.shape[1:])
    return image[:, top : top + _CALIBRATION_SIDE, left : left + _CALIBRATION_SIDE]


def window_of(network: nn.Module) -> int:
    """Return the side of a network's attention windows in pixels, or a usual one."""
    return getattr(getattr(network, "features", network), "window_size", 16)
