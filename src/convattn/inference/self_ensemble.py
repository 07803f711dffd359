"""Self-ensemble: the mean over the eight flips and rotations of an image.

Source: Timofte, Rothe and Van Gool, "Seven Ways to Improve Example-Based Single Image Super Resolution",
CVPR 2016, section 3.
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from convattn.images.pixel_range import from_unit, to_unit
from convattn.progress import Progress, share

__all__ = ["upscale_symmetrically"]

Size = tuple[int, int]


def upscale_symmetrically(
    upscale: Callable[[Tensor, Size, Progress], Tensor], image: Tensor, size: Size, progress: Progress
) -> Tensor:
    """Upscale all flips and rotations of images, undo these, and average the results before rounding.

    Args:
        upscale: Upscales floating-point images in [0, 1] to a height and width.
        image: (N, channels, H, W).
        size: Height and width of the results.
        progress: Called with the fraction that is done.

    Returns:
        (N, channels, *size) of the same dtype.
    """
    unit = to_unit(image)
    total = torch.zeros(*image.shape[:2], *size, device=image.device)
    for number, (transposed, *axes) in enumerate(itertools.product((False, True), (None, 2), (None, 3))):
        flipped = unit.flip([axis for axis in axes if axis])
        turned = (flipped.transpose(2, 3) if transposed else flipped).contiguous()
        result = upscale(turned, size[::-1] if transposed else size, share(progress, number, 8))
        result = result.transpose(2, 3) if transposed else result
        total += result.flip([axis for axis in axes if axis])
    return from_unit(total / 8, image.dtype)
