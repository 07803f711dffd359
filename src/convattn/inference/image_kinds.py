"""Images of every kind in Python as tensors, and results as the same kind of image."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from convattn.errors import InputError
from convattn.images.io import Image, read_image
from convattn.images.pixel_range import DEPTHS

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["Unpacked", "unpack"]

_LOWEST, _HIGHEST = -0.5, 2.0  # of floating-point pixels; resized images leave [0, 1] a little


class Unpacked(NamedTuple):
    """An image as a tensor.

    Attributes:
        pixels: (N, channels, H, W).
        pack: Makes the same kind of image from a result of this shape.
    """

    pixels: Tensor
    pack: Callable[[Tensor], Any]


def unpack(image: Any) -> Unpacked:
    """Return the pixels of an image and how to make the same kind of image again.

    Args:
        image: A path, an :class:`~convattn.images.io.Image`, a PIL image, an array (H, W) or
            (H, W, channels), or a tensor (channels, H, W) or (N, channels, H, W).

    Raises:
        InputError: It is none of these, or its pixels are out of range.
    """
    if isinstance(image, (str, os.PathLike)):
        image = read_image(image)
    if isinstance(image, Image):
        file = image
        pixels, pack = _unpack_array(file.pixels)
        return Unpacked(pixels, lambda upscaled: replace(file, pixels=pack(upscaled)))
    if isinstance(image, Tensor):
        return _unpack_tensor(image)
    if isinstance(image, np.ndarray):
        return _unpack_array(image)
    if "PIL.Image" in sys.modules and isinstance(image, sys.modules["PIL.Image"].Image):
        return _unpack_pil(image)
    kind = type(image).__name__
    raise InputError(f"An image is a path, a PIL image, a NumPy array or a torch tensor, not {kind}.")


def _unpack_tensor(tensor: Tensor) -> Unpacked:
    if tensor.ndim == 3:
        return Unpacked(_checked(tensor[None]), lambda upscaled: upscaled[0])
    if tensor.ndim != 4:
        raise InputError(
            f"The tensor of an image is (channels, H, W) or (N, channels, H, W), not {tuple(tensor.shape)}."
        )
    return Unpacked(_checked(tensor), lambda upscaled: upscaled)


def _unpack_array(array: np.ndarray) -> Unpacked:
    if array.ndim not in (2, 3):
        raise InputError(f"The array of an image is (H, W) or (H, W, channels), not {array.shape}.")
    has_channels = array.ndim == 3
    array = np.require(array, array.dtype.newbyteorder("="), ["C", "W"])
    if array.dtype.kind not in "uif":
        raise InputError(f"The pixels of an array are uint8, uint16 or floating-point, not {array.dtype}.")
    pixels = torch.from_numpy(array if has_channels else array[..., None]).movedim(-1, 0)[None]

    def pack(upscaled: Tensor) -> np.ndarray:
        result = upscaled[0].movedim(0, -1).contiguous().numpy()
        return result if has_channels else result[..., 0]

    return Unpacked(_checked(pixels), pack)


def _unpack_pil(image: "PILImage") -> Unpacked:
    from PIL.Image import fromarray

    pixels, pack = _unpack_array(_pixels_of(image))
    outdated = {"transparency"} | ({"icc_profile"} if image.mode in ("CMYK", "LAB") else set())

    def pack_pil(upscaled: Tensor) -> "PILImage":
        result = fromarray(pack(upscaled))
        result.info = {key: value for key, value in image.info.items() if key not in outdated}
        return result

    return Unpacked(pixels, pack_pil)


def _pixels_of(image: "PILImage") -> np.ndarray:
    """The pixels of a PIL image as grayscale or RGB, with alpha where it has transparency of any kind."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        raise InputError(
            f"PIL images of mode {image.mode} have no known range; convert them to arrays in [0, 1]."
        )
    if image.mode in ("CMYK", "LAB"):
        return _in_srgb(image)
    color = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    return np.asarray(image.convert(color + "A" * image.has_transparency_data))


def _in_srgb(image: "PILImage") -> np.ndarray:
    """A CMYK or Lab image in sRGB: CMYK through its profile, or a common one where it has none."""
    import pyvips

    array = np.asarray(image)
    if image.mode == "LAB":  # PIL stores L in 0…255, a and b as signed bytes
        lightness, a, b = np.moveaxis(array, -1, 0)
        lab = np.stack([lightness * np.float32(100 / 255), a.view(np.int8), b.view(np.int8)], -1)
        return pyvips.Image.new_from_array(lab, interpretation="lab").colourspace("srgb").numpy()
    vips_image = pyvips.Image.new_from_array(array, interpretation="cmyk")
    if profile := image.info.get("icc_profile"):
        vips_image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    try:
        return vips_image.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=8).numpy()
    except pyvips.Error as error:
        raise InputError("The color profile of this CMYK image is damaged; remove it.") from error


def _checked(pixels: Tensor) -> Tensor:
    """Images (N, channels, H, W) whose shape, dtype and range are those of images."""
    if not 1 <= pixels.shape[1] <= 4 or 0 in pixels.shape:
        raise InputError(
            "Images have 1 to 4 channels and at least one pixel, but (N, channels, H, W) is "
            f"{tuple(pixels.shape)}."
        )
    if not pixels.is_floating_point():
        if pixels.dtype not in DEPTHS:
            raise InputError(f"Pixels are uint8, uint16 or floating-point in [0, 1], not {pixels.dtype}.")
        return pixels
    pixels = pixels.detach()
    lowest, highest = pixels.amin().item(), pixels.amax().item()
    if not _LOWEST <= lowest <= highest <= _HIGHEST:  # also where one is NaN
        raise InputError(
            f"Floating-point pixels lie in [0, 1], but these reach from {lowest:g} to {highest:g}; divide "
            "them by 255, or pass them as uint8."
        )
    return pixels
