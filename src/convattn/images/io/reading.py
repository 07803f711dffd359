"""Image files to arrays, with as little lost on the way as possible.

What is neither grayscale nor RGB of 8 or 16 bits per channel (palettes, one bit, CMYK, Lab) becomes one of
these. libvips decodes the common formats region by region, Pillow and its plugins decode the others.
"""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyvips
import torch

from convattn.errors import InputError
from convattn.images.io.formats import LIBVIPS, PLUGINS, check_name, sniff
from convattn.images.io.image import Image
from convattn.images.io.metadata import CICP, collect, exif_in_text, orientation_of, turn_gain_map
from convattn.images.io.pillow import open_with_pillow
from convattn.images.io.png_chunks import color_chunks, fault_of, is_animated
from convattn.images.io.tags import exif_of_tiff, nclx_of
from convattn.images.lazy_image import Region
from convattn.images.memmap import gather

__all__ = ["read_image", "read_rgb", "reason"]

_ROWS_AT_ONCE = 128
_WITH_FALLBACK = ("TIFF", "AVIF")  # formats of which Pillow reads some kinds that libvips refuses
_SYSTEM = "system error: "
_NO_REASON = ("unable to ", "source is not in", "libpng read error")
_GRAYSCALE, _RGB = ("b-w", "grey16"), ("srgb", "rgb16")


def read_image(path: str | os.PathLike[str]) -> Image:
    """Read an image and turn it upright by its EXIF orientation.

    Of an animation or a file with several pages the first is read, with a warning. The pixels of an image too
    large for memory are memory-mapped from a temporary file.

    Args:
        path: A file in one of the formats of :data:`~convattn.images.io.READABLE`; its contents decide which.

    Raises:
        InputError: The file is missing, empty, damaged, cut off, or not an image that can be read.
    """
    path = Path(path)
    _check_file(path)
    format = sniff(path)
    if format not in LIBVIPS:
        if format and format not in PLUGINS:
            raise InputError(f"{path} is {format}, which cannot be read; convert it to PNG or TIFF first.")
        return _decoded(path, open_with_pillow(path, format))
    try:
        vips_image = _open_with_libvips(path, format)
        if format == "AVIF" and vips_image.format == "uchar":
            vips_image = _with_finer_chroma(path, vips_image)
    except InputError:
        if format not in _WITH_FALLBACK:
            raise
        return _decoded(path, open_with_pillow(path, format))
    try:
        return _decoded(path, vips_image)
    except InputError:
        if format in _WITH_FALLBACK:
            with suppress(InputError):
                return _decoded(path, open_with_pillow(path, format))
        raise


def read_rgb(path: str | os.PathLike[str]) -> torch.Tensor:
    """Read an image file as 8-bit RGB: ``uint8`` (3, H, W); grayscale is repeated, alpha is dropped.

    Raises:
        InputError: The file is missing or cannot be read as an image.
    """
    pixels = read_image(path).pixels
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    colors = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1].repeat(3, axis=-1)
    return torch.from_numpy(np.ascontiguousarray(colors.transpose(2, 0, 1)))


def reason(error: pyvips.Error) -> str:
    """Return the first message of the operating system, such as that the disk is full, or libvips' last."""
    lines = [line.strip().rstrip(".") for line in str(error).strip().splitlines()]
    system = (line.removeprefix(_SYSTEM) for line in lines if line.startswith(_SYSTEM))
    return next(system, lines[-1])


def _fault(path: Path, format: str | None, error: pyvips.Error) -> str:
    """Return why libvips cannot read a file; of PNG it often says only that it cannot."""
    why = re.sub(r"^\w+: ", "", reason(error))
    return fault_of(path) if format == "PNG" and why.startswith(_NO_REASON) else why


def _check_file(path: Path) -> None:
    check_name(path)
    if not path.exists():
        raise InputError(f"There is no file {path}.")
    if not path.is_file():
        raise InputError(f"{path} is not a file.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty.")


def _open_with_libvips(path: Path, format: str) -> pyvips.Image:
    """Return an upright image whose header is read and whose pixels are decoded on demand."""
    try:
        vips_image = _lazy(path, access="sequential")
        orientation = orientation_of(vips_image)
        if orientation > 1:
            vips_image = _lazy(path, access="random").copy()  # turning does not begin at the top
            vips_image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
        _warn_of_frames(path, vips_image)
        vips_image = turn_gain_map(vips_image.autorot(), orientation).copy()
    except pyvips.Error as error:
        raise InputError(
            f"{path} is damaged, so get a whole copy of it: {_fault(path, format, error)}."
        ) from error
    for name, blob in _unread(path, format, vips_image).items():
        if blob:
            vips_image.set_type(pyvips.GValue.blob_type, name, blob)
    return vips_image


def _with_finer_chroma(path: Path, vips_image: pyvips.Image) -> pyvips.Image:
    """Return an AVIF image with the pixels of Pillow, which interpolates the chroma that libheif repeats."""
    finer = open_with_pillow(path, "AVIF")
    if CICP in vips_image.get_fields():
        finer.set_type(pyvips.GValue.blob_type, CICP, vips_image.get(CICP))
    return finer


def _lazy(path: Path, access: str) -> pyvips.Image:
    # A source, because libvips would take brackets in a file name for options.
    source = pyvips.Source.new_from_file(str(path))
    return pyvips.Image.new_from_source(source, "", access=access, fail_on="error")


def _unread(path: Path, format: str, vips_image: pyvips.Image) -> dict[str, bytes | None]:
    """Return the metadata that libvips does not read."""
    if format == "PNG":
        chunks = color_chunks(path).items()
        colors = {CICP if name == "cICP" else f"png-{name}": data for name, data in chunks}
        return {**colors, "exif-data": exif_in_text(vips_image)}
    if format == "AVIF":
        return {CICP: nclx_of(path)}
    return {"exif-data": exif_of_tiff(path)} if format == "TIFF" else {}


def _decoded(path: Path, vips_image: pyvips.Image) -> Image:
    try:
        vips_image = _in_known_colors(path, vips_image)
        dtype = np.uint16 if vips_image.format == "ushort" else np.uint8
        shape = vips_image.height, vips_image.width, vips_image.bands
        pixels = gather(shape, dtype, _strips(vips_image, dtype))
    except pyvips.Error as error:
        why = _fault(path, sniff(path), error)
        raise InputError(f"{path} is damaged or cut off, so get a whole copy of it: {why}.") from error
    known = (vips_image.xres, vips_image.yres) != (1.0, 1.0)  # libvips' default
    return Image(pixels, collect(vips_image), *([(vips_image.xres, vips_image.yres)] if known else []))


def _strips(vips_image: pyvips.Image, dtype: type) -> Iterator[tuple[Region, np.ndarray]]:
    """Yield the pixels of an image from the top, decoded on demand."""
    decoded, width = pyvips.Region.new(vips_image), vips_image.width
    for top in range(0, vips_image.height, _ROWS_AT_ONCE):
        rows = slice(top, min(top + _ROWS_AT_ONCE, vips_image.height))
        pixels = decoded.fetch(0, top, width, rows.stop - top)
        yield (rows, slice(0, width)), np.frombuffer(pixels, dtype).reshape(-1, width, vips_image.bands)


def _warn_of_frames(path: Path, vips_image: pyvips.Image) -> None:
    frames = vips_image.get_n_pages()
    if frames > 1 or is_animated(path):
        count = frames if frames > 1 else "several"
        warnings.warn(f"{path} holds {count} frames or pages; only the first is read.", stacklevel=4)


def _in_known_colors(path: Path, vips_image: pyvips.Image) -> pyvips.Image:
    """Return the image in grayscale or RGB of 8 or 16 bits."""
    kind = vips_image.interpretation
    if kind == "cmyk":  # through its profile, or a common one where it has none
        depth = 16 if vips_image.format == "ushort" else 8
        vips_image = vips_image.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth)
    elif kind in ("lab", "labs"):  # relative to D50, as in TIFF and PSD
        depth = 8 if kind == "lab" else 16
        vips_image = vips_image.colourspace("lab").icc_export(output_profile="srgb", depth=depth)
    if vips_image.format not in ("uchar", "ushort"):
        raise InputError(
            f"{path} holds {vips_image.format} values; convert it to PNG or TIFF of 8 or 16 bits."
        )
    if vips_image.interpretation not in _GRAYSCALE + _RGB or vips_image.bands > 4:
        raise InputError(f"{path} has {vips_image.bands} channels; only grayscale, RGB and CMYK are known.")
    return vips_image
