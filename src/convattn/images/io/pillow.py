"""Images in the formats that libvips does not decode, decoded by Pillow and its plugins."""

import importlib
import logging
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyvips
from PIL import ImageOps, UnidentifiedImageError

from convattn.errors import InputError
from convattn.images.io.deep import bits_per_channel, read_deep
from convattn.images.io.formats import PLUGINS
from convattn.images.io.metadata import CICP

__all__ = ["open_with_pillow", "raster_formats"]

_NOT_RASTER = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "FPX", "MIC", "PDF"}
_DEEP_RAW = re.compile(r"(RGB|RGBA|RGBX|R|G|B)['\";]*;?16|SGI16")
_OF_ONE_IMAGE = ("PSD", "ICO", "ICNS", "CUR")  # whose frames are layers and sizes of it
_TWELVE = 65535 / 4095
_BITS_PER_SAMPLE = 258  # tag of TIFF
logging.getLogger("PIL").addHandler(logging.NullHandler())  # which otherwise prints of damaged files


def open_with_pillow(path: Path, format: str | None = None) -> pyvips.Image:
    """Decode an image to an image of libvips, upright and with its metadata.

    Args:
        path: The file.
        format: Its name by :func:`~convattn.images.io.formats.sniff`.

    Raises:
        InputError: The file is damaged, has no format that Pillow knows, or needs a plugin that is missing.
    """
    _load_plugin(path, format)
    if format == "HEIC":
        return _guarded(path, format, _decode_heic)
    deep = _read_deep_pnm(path)
    return deep if deep is not None else _guarded(path, format, _decode)


def _load_plugin(path: Path, format: str | None) -> None:
    module, extra = PLUGINS.get(format or "", (None, None))
    if module:
        try:
            importlib.import_module(module)
        except ImportError:
            raise InputError(f"{path} is {format}, which needs a decoder: pip install '{extra}'.") from None


def _guarded(path: Path, format: str | None, decode: Callable[[Path], pyvips.Image]) -> pyvips.Image:
    """Decode a file, with every error of a decoder as an InputError."""
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", _Loss)
            vips_image = decode(path)
    except _UnsuitableError as error:
        raise InputError(f"{path} {error}; convert it to PNG or TIFF of 8 or 16 bits.") from None
    # Ultralytics replaces Image.open by one that needs pi_heif for files that Pillow does not know.
    except (UnidentifiedImageError, ModuleNotFoundError):
        kind = (
            f"damaged, or {format} of a kind that cannot be read"
            if format
            else "not an image in a known format"
        )
        raise InputError(f"{path} is {kind}.") from None
    except PIL.Image.DecompressionBombError:
        raise InputError(
            f"{path} is too large for this format; convert it to PNG or TIFF, which may have any size."
        ) from None
    except Exception as error:  # decoders raise whatever the parsing of a damaged file leads to
        name, why = format or _name_of(path), " ".join(str(error).split()).rstrip(".")
        raise InputError(f"{path} is damaged, or {name} of a kind that cannot be read: {why}.") from error
    for warning in said:
        warnings.warn(f"{path} {warning.message}", stacklevel=5)
    return vips_image


class _Loss(UserWarning):
    """Something of a file that is not read."""


class _UnsuitableError(Exception):
    """Pixel values that have no meaning as an image."""


def _name_of(path: Path) -> str:
    try:
        with PIL.Image.open(path) as image:
            return str(image.format)
    except Exception:  # as above
        return "an image"


def raster_formats() -> list[str]:
    """Return the names of the formats that Pillow may open: no documents, no vector graphics."""
    PIL.Image.init()
    return sorted(set(PIL.Image.ID) - _NOT_RASTER)


def _decode(path: Path) -> pyvips.Image:
    with PIL.Image.open(path, formats=raster_formats()) as image:
        frames = 1 if image.format in _OF_ONE_IMAGE else getattr(image, "n_frames", 1)
        if frames > 1:
            warnings.warn(_frames_lost(frames), _Loss, stacklevel=1)
        deep = read_deep(path, image.format)
        if deep is not None:
            return _to_vips(deep, "grey16" if deep.shape[2] == 1 else "rgb16", image.info)
        _check_depth(image, path)
        twelve_bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE) == (12,)
        image.load()
        upright = ImageOps.exif_transpose(image)
        pixels, interpretation = pixels_of(upright)
        if twelve_bits and pixels.dtype == np.uint16:
            pixels = (pixels * _TWELVE).round().astype(np.uint16)
        return _to_vips(pixels, interpretation, image.info)


def _frames_lost(count: int) -> str:
    return f"holds {count} frames or pages; only the first is read."


def _check_depth(image: PIL.Image.Image, path: Path) -> None:
    """Warn where Pillow reads 8 of 16 bits; of JPEG 2000 it makes the brightest values black."""
    bits = bits_per_channel(path, image.format)
    if image.format == "JPEG2000" and bits > 8 and not image.mode.startswith("I;16"):
        raise _UnsuitableError(f"has {bits} bits, which need PyAV (pip install 'convattn[video]')")
    if image.mode in ("RGB", "RGBA", "L") and _DEEP_RAW.search(str(getattr(image, "tile", ""))):
        warnings.warn("has more than 8 bits per channel, of which 8 are read.", _Loss, stacklevel=1)


def pixels_of(image: PIL.Image.Image) -> tuple[np.ndarray, str]:
    """Return the pixels (H, W, channels) of a PIL image and libvips' name of what they mean."""
    mode = image.mode
    if mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise _UnsuitableError("holds integers of more than 16 bits")
        return values.astype(np.uint16)[..., None], "grey16"
    if mode == "F":
        raise _UnsuitableError("holds floating-point values, which have no known range")
    if mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[..., None], "grey16"
    if mode == "CMYK":
        return np.asarray(image), "cmyk"
    if mode == "LAB":
        lightness, *colors = np.asarray(image).transpose(2, 0, 1)
        planes = [lightness * np.float32(100 / 255), *(plane.view(np.int8) for plane in colors)]
        return np.stack(planes, -1).astype(np.float32), "lab"
    gray = mode in ("1", "L", "LA", "La")
    pixels = np.asarray(image.convert(("L" if gray else "RGB") + "A" * image.has_transparency_data))
    return pixels.reshape(*pixels.shape[:2], -1), "b-w" if gray else "srgb"


def _to_vips(pixels: np.ndarray, interpretation: str, info: dict[Any, Any]) -> pyvips.Image:
    vips_image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels), interpretation=interpretation)
    across, down = (float(dots or 0) for dots in info.get("dpi", (0, 0)))
    resolution = {"xres": across / 25.4, "yres": down / 25.4} if min(across, down) > 1 else {}
    vips_image = vips_image.copy(**resolution)
    blobs = {"icc_profile": "icc-profile-data", "exif": "exif-data", "xmp": "xmp-data"}
    for key, name in blobs.items():
        value = info.get(key)
        if value:
            blob = value.encode() if isinstance(value, str) else bytes(value)
            vips_image.set_type(pyvips.GValue.blob_type, name, blob)
    return vips_image


def _decode_heic(path: Path) -> pyvips.Image:
    """Decode with all bits; libheif turns the pixels itself."""
    from pillow_heif import open_heif

    heif = open_heif(path, convert_hdr_to_8bit=False)
    if len(heif) > 1:
        warnings.warn(_frames_lost(len(heif)), _Loss, stacklevel=1)
    pixels = np.asarray(heif)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    names = ("b-w", "grey16") if pixels.shape[2] < 3 else ("srgb", "rgb16")
    vips_image = _to_vips(pixels, names[pixels.dtype == np.uint16], heif.info)
    nclx = heif.info.get("nclx_profile")
    if nclx:
        cicp = bytes([int(nclx["color_primaries"]), int(nclx["transfer_characteristics"]), 0, 1])
        vips_image.set_type(pyvips.GValue.blob_type, CICP, cicp)
    return vips_image


def _read_deep_pnm(path: Path) -> pyvips.Image | None:
    """Read a binary PPM of 16 bits, of which Pillow would give 8; None for every other file."""
    with path.open("rb") as file:
        head = file.read(2**12)
    comment = rb"(?:\s*#[^\n]*\n)*\s*"
    match = re.match(rb"P6" + comment + rb"(\d+)\s" + comment + rb"(\d+)\s" + comment + rb"(\d+)\s", head)
    if match is None or not 255 < int(match[3]) < 65536:
        return None
    width, height, largest = (int(number) for number in match.groups())
    data = path.read_bytes()[match.end() :]
    if not 0 < width * height * 6 <= len(data):
        raise InputError(f"{path} is damaged or cut off: pixels are missing.")
    values = np.frombuffer(data, ">u2", width * height * 3).reshape(height, width, 3)
    pixels = (values.astype(np.float64) * (65535 / largest)).round().clip(0, 65535).astype(np.uint16)
    return _to_vips(pixels, "rgb16", {})
