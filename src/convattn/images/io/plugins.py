"""HEIC and JPEG XL, which plugins of Pillow write."""

import importlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyvips
from PIL import ExifTags

from convattn.errors import InputError
from convattn.images.io.formats import PLUGINS, Format
from convattn.images.io.metadata import CICP

__all__ = ["write_with_plugin"]

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def write_with_plugin(vips_image: pyvips.Image, path: Path, format: Format, quality: int) -> None:
    """Write an image with its EXIF, XMP and description of colors.

    JPEG XL gets colors in sRGB, as its plugin writes no profile.

    Raises:
        InputError: The plugin cannot encode.
    """
    plugin = importlib.import_module(PLUGINS[format.name][0])
    options = format.options(quality) | _metadata(vips_image)
    try:
        if format.name == "HEIC":
            _write_heic(plugin, vips_image, path, options)
        else:
            _write_jxl(vips_image, path, options)
    except OSError:
        raise
    except Exception as error:  # whatever the plugins raise
        raise InputError(f"{path.name} cannot be written as {format.name}: {error}.") from error


def _write_heic(plugin: Any, vips_image: pyvips.Image, path: Path, options: dict[str, Any]) -> None:
    """Write with 12 bits where the image has 16."""
    pixels = np.ascontiguousarray(vips_image.numpy())
    mode = _MODES[vips_image.bands] + (";16" if pixels.dtype == np.uint16 else "")
    if "icc-profile-data" in vips_image.get_fields():
        options["icc_profile"] = vips_image.get("icc-profile-data")
    if CICP in vips_image.get_fields():
        primaries, transfer = bytes(vips_image.get(CICP))[:2]
        options |= {"color_primaries": primaries, "transfer_characteristics": transfer, "full_range_flag": 1}
        options.setdefault("matrix_coefficients", 6)
    image = plugin.from_bytes(mode, (vips_image.width, vips_image.height), pixels.tobytes())
    image.save(path, bit_depth=12, **options)


def _write_jxl(vips_image: pyvips.Image, path: Path, options: dict[str, Any]) -> None:
    if "icc-profile-data" in vips_image.get_fields():
        vips_image = vips_image.icc_transform("srgb", embedded=True)
    pixels = vips_image.numpy()
    PIL.Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels).save(
        path, "JXL", **options
    )


def _metadata(vips_image: pyvips.Image) -> dict[str, Any]:
    """Return EXIF, without the orientation that the pixels have already, and XMP."""
    fields, kept = vips_image.get_fields(), {}
    if "exif-data" in fields:
        tags = PIL.Image.Exif()
        with suppress(Exception):  # of a damaged one nothing is kept
            tags.load(bytes(vips_image.get("exif-data")))
            tags.pop(ExifTags.Base.Orientation, None)
            kept["exif"] = tags.tobytes()
    if "xmp-data" in fields:
        kept["xmp"] = bytes(vips_image.get("xmp-data"))
    return kept
