"""What image files say besides their pixels: which of it is kept, and what a format loses."""

import re
import struct
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import PIL.Image
import pyvips
from PIL import ExifTags

from convattn.images.io.formats import Format
from convattn.images.io.image import Image

__all__ = [
    "CICP",
    "PNG_CHROMATICITIES",
    "PNG_GAMMA",
    "collect",
    "exif_in_text",
    "orientation_of",
    "turn_gain_map",
    "warn_of_losses",
]

CICP = "cicp"
"""Color primaries, transfer, matrix and range as four bytes (ITU-T H.273), as in PNG's cICP chunk."""

PNG_GAMMA, PNG_CHROMATICITIES = "png-gAMA", "png-cHRM"
"""The contents of these two chunks, where nothing else in the file describes its colors."""

_KEPT = (
    "icc-profile-data",
    "exif-",
    "xmp-data",
    "iptc-data",
    "image-description",
    "png-comment",
    "png-gAMA",
    "png-cHRM",
    "resolution-unit",
    "gainmap-",
    CICP,
)
_DROPPED = "exif-ifd1-"  # the thumbnail's
_NAMES = {16: "PQ (HDR)", 18: "HLG (HDR)"}  # transfer characteristics in H.273
_WITH_CICP = ("PNG", "HEIC")
_SRGB_LIKE = ((1, 13), (1, 1), (1, 6), (2, 2))  # primaries and transfer that viewers assume
_EXIF = b"Exif\0\0"
_EXIF_IN_TEXT = re.compile(r"png-comment-\d+-Raw profile type (exif|APP1)")  # as ImageMagick writes it
_ORIENTATION = rb"(tiff:Orientation(?:=[\"']|>))([2-8])"


def collect(vips_image: pyvips.Image) -> dict[str, tuple[int, Any]]:
    """Return the metadata to keep, without the thumbnail and with the orientation of upright pixels."""
    kept = {
        name: (vips_image.get_typeof(name), vips_image.get(name))
        for name in vips_image.get_fields()
        if name.startswith(_KEPT) and not (name.startswith(_DROPPED) or _EXIF_IN_TEXT.fullmatch(name))
    }
    if "xmp-data" in kept:
        kind, xmp = kept["xmp-data"]
        kept["xmp-data"] = kind, re.sub(_ORIENTATION, rb"\g<1>1", bytes(xmp))
    if "exif-data" in kept:
        kind, exif = kept["exif-data"]
        kept["exif-data"] = kind, _without_thumbnail(bytes(exif))
    return kept


def orientation_of(vips_image: pyvips.Image) -> int:
    """Return the orientation of an image by its EXIF data or, where that says nothing, by its XMP data."""
    fields = vips_image.get_fields()
    if "orientation" in fields:
        return int(vips_image.get("orientation"))
    if exif := exif_in_text(vips_image):
        tags = PIL.Image.Exif()
        with suppress(Exception):  # a parser of damaged bytes raises anything
            tags.load(exif)
            return min(int(tags.get(ExifTags.Base.Orientation, 1)), 8)
    found = re.search(_ORIENTATION, bytes(vips_image.get("xmp-data"))) if "xmp-data" in fields else None
    return int(found[2]) if found else 1


def exif_in_text(vips_image: pyvips.Image) -> bytes | None:
    """Return the EXIF data that a PNG image has as text in hexadecimal; None if there is none."""
    for name in vips_image.get_fields():
        if _EXIF_IN_TEXT.fullmatch(name):
            with suppress(ValueError):  # it begins with a name and a length
                return bytes.fromhex("".join(vips_image.get(name).split()[2:]))
    return None


def _without_thumbnail(exif: bytes) -> bytes:
    """Return EXIF data whose first directory is its last; the second one describes the old thumbnail."""
    start = len(_EXIF) if exif.startswith(_EXIF) else 0
    order = "<" if exif[start : start + 2] == b"II" else ">"
    try:
        (directory,) = struct.unpack_from(order + "I", exif, start + 4)
        (entries,) = struct.unpack_from(order + "H", exif, start + directory)
        next_directory = start + directory + 2 + 12 * entries
        struct.unpack_from("I", exif, next_directory)
    except struct.error:
        return exif  # libvips drops what it cannot parse
    return exif[:next_directory] + bytes(4) + exif[next_directory + 4 :]


def turn_gain_map(vips_image: pyvips.Image, orientation: int) -> pyvips.Image:
    """Turn the gain map of an UltraHDR image upright, as its pixels already are."""
    if orientation < 2 or "gainmap-data" not in vips_image.get_fields():
        return vips_image
    gain_map = pyvips.Image.new_from_buffer(vips_image.get("gainmap-data"), "").copy()
    gain_map.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    turned = vips_image.copy()
    turned.set_type(pyvips.GValue.blob_type, "gainmap-data", gain_map.autorot().jpegsave_buffer(Q=95))
    return turned


def warn_of_losses(image: Image, path: Path, format: Format) -> None:
    """Warn of what an image says and the format of its new file cannot say."""
    lost = _unspeakable(image, format)
    if lost:
        warnings.warn(
            f"{path}: {format.name} cannot hold {lost} of the original, so its colors may look different.",
            stacklevel=3,
        )


def _unspeakable(image: Image, format: Format) -> str | None:
    if "gainmap-data" in image.metadata and (format.name != "JPEG" or image.pixels.shape[2] != 3):
        return "the HDR gain map"
    if CICP in image.metadata and format.name not in _WITH_CICP:
        primaries, transfer = bytes(image.metadata[CICP][1])[:2]
        if (primaries, transfer) not in _SRGB_LIKE and "icc-profile-data" not in image.metadata:
            return f"the color description {_NAMES.get(transfer, f'{primaries}/{transfer} (H.273)')}"
    if format.name != "PNG" and (PNG_GAMMA in image.metadata or PNG_CHROMATICITIES in image.metadata):
        return "the gamma and chromaticities (gAMA, cHRM)"
    return None
