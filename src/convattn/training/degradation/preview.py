"""Examples of degraded images, to look at."""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from convattn.training.degradation.pipeline import degrade
from convattn.training.degradation.settings import Degradation
from convattn.training.degradation.steps import sharpen

__all__ = ["contact_sheet"]


def contact_sheet(
    image: Tensor,
    count: int,
    settings: Degradation | None = None,
    *,
    generator: Generator,
    side: int = 384,
) -> Tensor:
    """Make a sheet of an image's sharpened center crop and degraded examples of it, side by side.

    Args:
        image: (3, H, W) in [0, 1], H and W at least the scale.
        count: Number of examples.
        settings: As for :func:`degrade`.
        generator: Generator on the CPU.
        side: Largest side of the crop in pixels.

    Returns:
        (3, H', W') in [0, 1]: the target and the examples in rows, upscaled by nearest neighbor, on white.
    """
    settings = settings or Degradation()
    target = sharpen(_middle(image, side, settings.scale)[None])
    examples = [degrade(target, settings, generator=generator) for _ in range(count)]
    shown = [target[0], *(F.interpolate(example, size=target.shape[2:])[0] for example in examples)]
    columns = math.ceil(math.sqrt(len(shown)))
    shown += [torch.ones_like(target[0])] * (-len(shown) % columns)
    rows = [torch.cat(shown[start : start + columns], 2) for start in range(0, len(shown), columns)]
    return torch.cat(rows, 1)


def _middle(image: Tensor, side: int, scale: int) -> Tensor:
    height, width = (min(length, side) // scale * scale for length in image.shape[1:])
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    return image[:, top : top + height, left : left + width]
