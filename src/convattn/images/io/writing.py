"""Arrays to image files."""

import os
from pathlib import Path

import numpy as np
import pyvips

from convattn.errors import InputError
from convattn.files import replacing
from convattn.images.io.formats import Format, check_name, check_size, format_of
from convattn.images.io.image import Image
from convattn.images.io.metadata import CICP, PNG_CHROMATICITIES, PNG_GAMMA, warn_of_losses
from convattn.images.io.plugins import write_with_plugin
from convattn.images.io.png_chunks import add_chunks
from convattn.images.io.reading import reason
from convattn.images.io.tags import write_exif_to_tiff

__all__ = ["write_image"]

_CHUNKS = {CICP: "cICP", PNG_GAMMA: "gAMA", PNG_CHROMATICITIES: "cHRM"}


def write_image(image: Image, path: str | os.PathLike[str], *, quality: int = 95) -> None:
    """Write an image in the format of the path's suffix; the file appears whole or not at all.

    16 bits are rounded to 8 where the format has no more, and a transparent image is put on white where the
    format has no alpha (JPEG). What else the format cannot hold is reported by a warning.

    Args:
        image: What to write.
        path: The file; one that exists is replaced. Missing folders above it are made.
        quality: 1 to 100, of JPEG, WebP, AVIF, HEIC and JPEG XL; 100 makes all but JPEG lossless.

    Raises:
        InputError: The format cannot be written or cannot hold so many pixels, or the file cannot be written.
    """
    path, format = Path(path), format_of(path)
    check_name(path)
    check_size(path, *image.pixels.shape[:2])
    warn_of_losses(image, path, format)
    try:
        with replacing(path, parents=True) as temporary:
            vips_image = _to_vips(image, format)
            if format.operation:
                getattr(vips_image, format.operation)(str(temporary), **format.options(quality))
            else:
                write_with_plugin(vips_image, temporary, format, quality)
            _complete(temporary, image, format)
    except pyvips.Error as error:
        raise InputError(f"{path} cannot be written: {reason(error)}.") from error


def _to_vips(image: Image, format: Format) -> pyvips.Image:
    """Return the image as one of libvips, with the depth and the channels that the format allows."""
    pixels, names = image.pixels, ("b-w", "grey16") if image.pixels.shape[2] < 3 else ("srgb", "rgb16")
    vips_image = pyvips.Image.new_from_array(pixels, interpretation=names[pixels.dtype == np.uint16])
    if pixels.dtype == np.uint16 and not format.deep:
        vips_image = (vips_image / 257).rint().cast("uchar").copy(interpretation=names[0])
    vips_image = vips_image.copy(xres=image.resolution[0], yres=image.resolution[1])
    for name, (kind, value) in image.metadata.items():
        if not name.startswith("gainmap-") or pixels.shape[2] == 3:
            vips_image.set_type(kind, name, value)
    # Set outright, or libvips would restore the one in the EXIF data.
    vips_image.set_type(pyvips.GValue.gint_type, "orientation", 1)
    if names[0] == "b-w" and not format.grayscale and "icc-profile-data" in image.metadata:
        return vips_image.icc_transform("srgb")  # a grayscale profile does not fit RGB
    return vips_image


def _complete(path: Path, image: Image, format: Format) -> None:
    """Add to a new file the metadata that libvips does not write."""
    blobs = {name: bytes(value) for name, (_, value) in image.metadata.items() if isinstance(value, bytes)}
    if format.name == "PNG":
        add_chunks(path, {chunk: blobs[name] for name, chunk in _CHUNKS.items() if name in blobs})
    elif format.name == "TIFF" and "exif-data" in blobs:
        write_exif_to_tiff(path, blobs["exif-data"])
