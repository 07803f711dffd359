"""Image files to arrays and back, with nothing lost on the way.

Whatever is no grayscale or RGB image of 8 or 16 bits a channel (palettes, one bit, CMYK, Lab) becomes one.
What libvips cannot carry over is lost: the private tags of TIFF files.
"""

import os
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
import torch

from convattn.errors import InputError
from convattn.files import replacing
from convattn.images.lazy_image import Region
from convattn.images.memmap import gather

__all__ = [
    "READABLE",
    "WRITABLE",
    "Format",
    "Image",
    "check_size",
    "find_images",
    "format_of",
    "read_image",
    "read_rgb",
    "write_image",
]


_ROWS_AT_ONCE = 128
_PIXELS_A_MM = 72 / 25.4  # what is said of an image that does not say it itself


@dataclass
class Image:
    """An image as its file tells it, turned upright.

    Attributes:
        pixels: (H, W, channels) in uint8 or uint16; the channels are grayscale, grayscale and alpha, RGB, or
            RGB and alpha. Colors are not multiplied by alpha.
        metadata: What else the file holds (ICC profile, EXIF, XMP, IPTC, comments), by libvips' names, each
            with its libvips type.
        resolution: Pixels a millimetre, across and down.
    """

    pixels: np.ndarray
    metadata: dict[str, tuple[int, Any]] = field(default_factory=dict)
    resolution: tuple[float, float] = (_PIXELS_A_MM, _PIXELS_A_MM)


@dataclass(frozen=True)
class Format:
    """What a file format can hold.

    Attributes:
        name: As people call it.
        operation: The libvips operation that writes it.
        largest_side: In pixels.
        deep: Whether it holds 16 bits a channel (AVIF: the upper 12 of them).
        alpha: Whether it holds transparency.
        grayscale: Whether it holds images of one channel.
        options: From the quality, 1 to 100, to the options of the operation.
    """

    name: str
    operation: str
    largest_side: int
    deep: bool
    alpha: bool
    grayscale: bool
    options: Callable[[int], dict[str, Any]]


_PNG = Format("PNG", "pngsave", 10**8, True, True, True, lambda quality: {"filter": "all"})
_JPEG = Format(
    "JPEG", "jpegsave", 65500, False, False, True, lambda quality: {"Q": quality, "background": 255}
)
_WEBP = Format(
    "WebP", "webpsave", 16383, False, True, False, lambda quality: {"Q": quality, "lossless": quality == 100}
)
_TIFF = Format(
    "TIFF",
    "tiffsave",
    10**8,
    True,
    True,
    True,
    lambda quality: {"compression": "deflate", "predictor": "horizontal"},
)
_AVIF = Format(
    "AVIF",
    "heifsave",
    16384,
    True,
    True,
    False,
    lambda quality: {"Q": quality, "lossless": quality == 100, "compression": "av1"},
)

WRITABLE: dict[str, Format] = {
    ".png": _PNG,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": _WEBP,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".avif": _AVIF,
}
"""The formats that can be written, by the file name's suffix in lower case."""

READABLE = (*WRITABLE, ".gif")
"""The suffixes of images that are looked for in folders."""

_LOADERS = ("png", "jpeg", "webp", "tiff", "heif", "gif")
_KEPT = (
    "icc-profile-data",
    "exif-",
    "xmp-data",
    "iptc-data",
    "image-description",
    "png-comment",
    "resolution-unit",
)
_SYSTEM = "system error: "
_GRAYSCALE, _RGB = ("b-w", "grey16"), ("srgb", "rgb16")


def find_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the image files in a folder and in the folders within it, sorted, without hidden ones.

    Raises:
        InputError: The folder is missing or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give a folder of images.")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in READABLE
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not found:
        raise InputError(f"The folder {folder} holds no images ({', '.join(READABLE)}).")
    return found


def format_of(path: str | os.PathLike[str]) -> Format:
    """Return the format that a file is written in, by its suffix.

    Raises:
        InputError: No such format can be written.
    """
    path = Path(path)
    try:
        return WRITABLE[path.suffix.lower()]
    except KeyError:
        raise InputError(f"{path} cannot be written: its name must end in {', '.join(WRITABLE)}.") from None


def check_size(path: str | os.PathLike[str], height: int, width: int) -> None:
    """Raise an InputError where the format of a file cannot hold so many pixels."""
    format = format_of(path)
    if max(height, width) > format.largest_side:
        raise InputError(
            f"{path} cannot be written: {format.name} holds at most {format.largest_side} pixels a side, "
            f"not {width}×{height}; choose PNG or TIFF."
        )


def read_image(path: str | os.PathLike[str]) -> Image:
    """Read an image and turn it upright by its EXIF orientation.

    Of an animation or a file of several pages the first is read, with a warning. The pixels of an image too
    large for memory are mapped to memory from a temporary file.

    Args:
        path: A PNG, JPEG, WebP, TIFF, AVIF or GIF file.

    Raises:
        InputError: The file is missing, empty, damaged, cut off, or no image that can be handled.
    """
    path = Path(path)
    vips_image = _open(path)
    _warn_of_frames(path, vips_image)
    try:
        vips_image = _in_known_colors(path, vips_image.autorot())
        dtype = np.uint16 if vips_image.format == "ushort" else np.uint8
        pixels = gather(
            (vips_image.height, vips_image.width, vips_image.bands), dtype, _strips(vips_image, dtype)
        )
    except pyvips.Error as error:
        raise InputError(f"{path} is damaged or cut off: {_reason(error)}.") from error
    known = (vips_image.xres, vips_image.yres) != (1.0, 1.0)  # libvips' default
    return Image(pixels, _metadata(vips_image), *([(vips_image.xres, vips_image.yres)] if known else []))


def read_rgb(path: str | os.PathLike[str]) -> torch.Tensor:
    """Read an image file as 8-bit RGB: ``uint8`` (3, H, W); grayscale is repeated, alpha is dropped.

    Raises:
        InputError: if the file is missing or cannot be read as an image.
    """
    pixels = read_image(path).pixels
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    colors = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1].repeat(3, axis=-1)
    return torch.from_numpy(np.ascontiguousarray(colors.transpose(2, 0, 1)))


def _open(path: Path) -> pyvips.Image:
    """The image with its header read and its pixels to come."""
    if not path.exists():
        raise InputError(f"There is no file {path}.")
    if not path.is_file():
        raise InputError(f"{path} is not a file.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty.")
    try:
        vips_image = _image_of(path, access="sequential")
        if vips_image.get_typeof("orientation") and vips_image.get("orientation") > 1:
            vips_image = _image_of(path, access="random")  # turning does not begin at the top
    except pyvips.Error as error:
        raise InputError(f"{path} is not an image that can be read: {_reason(error)}.") from error
    if not vips_image.get("vips-loader").startswith(_LOADERS):
        raise InputError(f"{path} is no PNG, JPEG, WebP, TIFF, AVIF or GIF file, and no other can be read.")
    return vips_image


def _image_of(path: Path, access: str) -> pyvips.Image:
    # A source, because libvips would take brackets in a file name for options.
    source = pyvips.Source.new_from_file(str(path))
    return pyvips.Image.new_from_source(source, "", access=access, fail_on="error")


def _strips(vips_image: pyvips.Image, dtype: type) -> Iterator[tuple[Region, np.ndarray]]:
    """The pixels of an image from the top, decoded as they are wanted."""
    decoded, width = pyvips.Region.new(vips_image), vips_image.width
    for top in range(0, vips_image.height, _ROWS_AT_ONCE):
        rows = slice(top, min(top + _ROWS_AT_ONCE, vips_image.height))
        pixels = decoded.fetch(0, top, width, rows.stop - top)
        yield (rows, slice(0, width)), np.frombuffer(pixels, dtype).reshape(-1, width, vips_image.bands)


def _reason(error: pyvips.Error) -> str:
    """What the operating system said first, such as that the disk is full, or else libvips last."""
    lines = [line.strip().rstrip(".") for line in str(error).strip().splitlines()]
    system = (line.removeprefix(_SYSTEM) for line in lines if line.startswith(_SYSTEM))
    return next(system, lines[-1])


def _warn_of_frames(path: Path, vips_image: pyvips.Image) -> None:
    frames = vips_image.get_n_pages()
    if frames > 1 or _is_animated_png(path):
        count = frames if frames > 1 else "several"
        warnings.warn(f"{path} holds {count} frames or pages; only the first is read.", stacklevel=3)


def _is_animated_png(path: Path) -> bool:
    """libvips reads the still image of an animated PNG and does not say that there is more."""
    with path.open("rb") as file:
        head = file.read(2**16)
    return head.startswith(b"\x89PNG") and b"acTL" in head.partition(b"IDAT")[0]


def _in_known_colors(path: Path, vips_image: pyvips.Image) -> pyvips.Image:
    """Grayscale or RGB of 8 or 16 bits."""
    if vips_image.interpretation == "cmyk":  # through its profile, or a common one where it has none
        depth = 16 if vips_image.format == "ushort" else 8
        vips_image = vips_image.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth)
    elif vips_image.interpretation in ("lab", "labs"):
        vips_image = vips_image.colourspace("srgb" if vips_image.interpretation == "lab" else "rgb16")
    if vips_image.format not in ("uchar", "ushort"):
        raise InputError(
            f"{path} holds {vips_image.format} values; convert it to 8 or 16 bits a channel first."
        )
    if vips_image.interpretation not in _GRAYSCALE + _RGB or vips_image.bands > 4:
        raise InputError(f"{path} has {vips_image.bands} channels that are no grayscale, RGB or CMYK image.")
    return vips_image


def _metadata(vips_image: pyvips.Image) -> dict[str, tuple[int, Any]]:
    kept = {
        name: (vips_image.get_typeof(name), vips_image.get(name))
        for name in vips_image.get_fields()
        if name.startswith(_KEPT)
    }
    if "xmp-data" in kept:
        kind, xmp = kept["xmp-data"]
        kept["xmp-data"] = kind, re.sub(rb"(tiff:Orientation(?:=[\"']|>))[2-8]", rb"\g<1>1", bytes(xmp))
    return kept


def write_image(image: Image, path: str | os.PathLike[str], *, quality: int = 95) -> None:
    """Write an image in the format of the path's suffix; the file appears whole or not at all.

    16 bits are rounded to 8 where the format has no more, and a transparent image is put on white where the
    format has no alpha (JPEG).

    Args:
        image: What to write.
        path: The file; one that exists is replaced. Folders above it are made.
        quality: 1 to 100, of JPEG, WebP and AVIF; 100 makes WebP and AVIF lossless.

    Raises:
        InputError: The format cannot be written or cannot hold so many pixels, or the file cannot be written.
    """
    path, format = Path(path), format_of(path)
    check_size(path, *image.pixels.shape[:2])
    vips_image = _to_vips(image, format)
    try:
        with replacing(path, parents=True) as temporary:
            getattr(vips_image, format.operation)(str(temporary), **format.options(quality))
    except pyvips.Error as error:
        raise InputError(f"{path} cannot be written: {_reason(error)}.") from error


def _to_vips(image: Image, format: Format) -> pyvips.Image:
    """The image in libvips' hands, as deep and as colored as the format allows."""
    pixels, colors = image.pixels, _GRAYSCALE if image.pixels.shape[2] < 3 else _RGB
    vips_image = pyvips.Image.new_from_array(pixels, interpretation=colors[pixels.dtype == np.uint16])
    if pixels.dtype == np.uint16 and not format.deep:
        vips_image = (vips_image / 257).rint().cast("uchar").copy(interpretation=colors[0])
    vips_image = vips_image.copy(xres=image.resolution[0], yres=image.resolution[1])
    for name, (kind, value) in image.metadata.items():
        vips_image.set_type(kind, name, value)
    # Said outright, or libvips would bring back the one in the EXIF data.
    vips_image.set_type(pyvips.GValue.gint_type, "orientation", 1)
    if colors == _GRAYSCALE and not format.grayscale and "icc-profile-data" in image.metadata:
        vips_image = vips_image.icc_transform(
            "srgb"
        )  # a grayscale profile does not fit the RGB that will be written
    return vips_image
