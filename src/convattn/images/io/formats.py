"""The image formats: their signatures, their suffixes, and what each of those we write can hold."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from convattn.errors import InputError
from convattn.images.signatures import HEAD, format_name

__all__ = [
    "LIBVIPS",
    "PLUGINS",
    "READABLE",
    "UNREADABLE",
    "WRITABLE",
    "Format",
    "check_encoder",
    "check_name",
    "check_size",
    "format_of",
    "sniff",
]


@dataclass(frozen=True)
class Format:
    """What a file format that we write can hold.

    Attributes:
        name: Its usual name.
        operation: The libvips operation that writes it; None where a plugin of Pillow does.
        largest_side: In pixels.
        deep: Whether it holds 16 bits per channel (AVIF: the upper 12 of them).
        alpha: Whether it holds transparency.
        grayscale: Whether it holds images of one channel.
        options: From the quality, 1 to 100, to the options of the operation or the plugin.
    """

    name: str
    operation: str | None
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
_HEIC = Format(
    "HEIC",
    None,
    16384,
    True,
    True,
    True,
    lambda quality: (
        {"quality": -1, "chroma": 444, "matrix_coefficients": 0} if quality == 100 else {"quality": quality}
    ),
)
_JPEG_XL = Format(
    "JPEG XL",
    None,
    65535,
    False,
    True,
    True,
    lambda quality: {"quality": quality, "lossless": quality == 100},
)

PLUGINS = {"HEIC": ("pillow_heif", "convattn[heif]"), "JPEG XL": ("pillow_jxl", "convattn[jxl]")}
"""What reads and writes a format that Pillow itself does not know: a module, and how to install it."""

WRITABLE: dict[str, Format] = {
    ".png": _PNG,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".jfif": _JPEG,
    ".jpe": _JPEG,
    ".webp": _WEBP,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".avif": _AVIF,
    ".heic": _HEIC,
    ".heif": _HEIC,
    ".jxl": _JPEG_XL,
}
"""The formats that can be written, by the suffix in lower case."""

_ONLY_READ = """
    .gif .apng .avifs .hif .bmp .dib .tga .icb .vda .vst .dds .ico .cur .icns .jp2 .j2k .jpc
    .jpf .jpx .mpo .ppm .pgm .pbm .pnm .psd .qoi .sgi .rgb .rgba .bw .pcx .dcx .ras .im .xbm .xpm .blp .fits
"""

READABLE = (*WRITABLE, *_ONLY_READ.split())
"""The suffixes of images that are looked for in folders."""

_NOT_READ = """
    .svg .svgz .eps .ai .pdf .wmf .emf .xcf .kra .psb .exr .hdr .pfm .raw .dng .cr2 .cr3 .nef .nrw .arw .srf
    .sr2 .orf .rw2 .raf .pef .srw .x3f .3fr .iiq .rwl .erf .mef .mos .kdc .dcr .mrw .jxr .wdp .djvu .clip
"""

UNREADABLE = tuple(_NOT_READ.split())
"""The suffixes of images that cannot be read; a search through a folder reports them."""

LIBVIPS = ("PNG", "JPEG", "WebP", "TIFF", "AVIF", "GIF")
"""The names of the formats that libvips decodes; Pillow decodes the others."""


def sniff(path: str | os.PathLike[str]) -> str | None:
    """Return the name of a file's format by its first bytes; None if they are not among the known ones."""
    with Path(path).open("rb") as file:
        return format_name(file.read(HEAD))


def format_of(path: str | os.PathLike[str]) -> Format:
    """Return the format that a file is written in, by its suffix.

    Raises:
        InputError: This format cannot be written, or not without a plugin.
    """
    path = Path(path)
    try:
        format = WRITABLE[path.suffix.lower()]
    except KeyError:
        raise InputError(f"{path} cannot be written: its name must end in {', '.join(WRITABLE)}.") from None
    check_encoder(format)
    return format


def check_encoder(format: Format) -> None:
    """Raise an InputError if the plugin that writes a format is missing."""
    module, extra = PLUGINS.get(format.name, (None, None))
    if module and find_spec(module) is None:
        raise InputError(f"Writing {format.name} needs an encoder: pip install '{extra}'.")


def check_name(path: Path) -> None:
    """Raise an InputError if the name of a file is not in UTF-8, as libvips needs it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        name = ascii(str(path))[1:-1]
        raise InputError(f"The name {name} is not in UTF-8, so rename the file.") from None


def check_size(path: str | os.PathLike[str], height: int, width: int) -> None:
    """Raise an InputError if the format of a file cannot hold an image of this size."""
    format = format_of(path)
    if max(height, width) > format.largest_side:
        raise InputError(
            f"{path} cannot be written: {format.name} holds at most {format.largest_side} pixels a side, "
            f"not {width}×{height}; choose PNG or TIFF."
        )
