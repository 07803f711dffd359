"""EXIF in TIFF files, which libvips neither reads nor writes; and the color description of AVIF files."""

import struct
from pathlib import Path
from typing import BinaryIO

from PIL import Image as PILImage
from PIL import TiffImagePlugin

__all__ = ["exif_of_tiff", "nclx_of", "write_exif_to_tiff"]

_DESCRIPTIVE = (270, 271, 272, 305, 306, 315, 316, 33432)  # description, camera, software, date, artist …
_DIRECTORIES = (0x8769, 0x8825)  # EXIF and GPS
_HEADER = b"Exif\0\0"
_CLASSIC = b"II*\0"
_BOX = b"colrnclx"


def exif_of_tiff(path: Path) -> bytes | None:
    """Return what a TIFF file says of its camera, place and author as EXIF data; None if it says nothing."""
    try:
        with PILImage.open(path, formats=["TIFF"]) as image:
            return _as_exif(image.getexif())
    except (OSError, ImportError, ValueError, KeyError, TypeError, struct.error):
        return None  # libvips reads the pixels of some files whose directories Pillow does not understand


def _as_exif(tags: PILImage.Exif) -> bytes | None:
    kept = PILImage.Exif()
    kept.update({tag: tags[tag] for tag in _DESCRIPTIVE if tag in tags})
    for directory in _DIRECTORIES:
        if entries := tags.get_ifd(directory):
            kept[directory] = dict(entries)
    return kept.tobytes() if len(kept) else None


def write_exif_to_tiff(path: Path, exif: bytes) -> None:
    """Add EXIF data to a TIFF file: a second directory at the end takes the place of the first.

    Files larger than 4 GB, which have directories of another kind, stay as they are.
    """
    tags = PILImage.Exif()
    tags.load(exif)
    extra = TiffImagePlugin.ImageFileDirectory_v2(ifh=b"II*\0\0\0\0\0")
    for tag in _DESCRIPTIVE:
        if tag in tags:
            extra[tag] = tags[tag]
    for directory in _DIRECTORIES:
        if entries := tags.get_ifd(directory):
            extra[directory] = dict(entries)
    if len(extra):
        with path.open("r+b") as file:
            if file.read(4) == _CLASSIC:
                _append(file, extra)


def _append(file: BinaryIO, extra: TiffImagePlugin.ImageFileDirectory_v2) -> None:
    """Write a directory of all entries to the end of a TIFF file, and make it the first."""
    (old_at,) = struct.unpack("<I", file.read(4))
    file.seek(old_at)
    old = _entries(file.read(2**16))
    end = file.seek(0, 2)
    end += end % 2
    added = extra.tobytes(end)
    added += bytes(len(added) % 2)
    entries = old | _entries(added)
    directory = struct.pack("<H", len(entries)) + b"".join(entry for _, entry in sorted(entries.items()))
    file.seek(end)
    file.write(added + directory + bytes(4))
    file.seek(4)
    file.write(struct.pack("<I", end + len(added)))


def _entries(directory: bytes) -> dict[int, bytes]:
    """Return the entries of a directory of 12 bytes each, by tag."""
    (count,) = struct.unpack_from("<H", directory)
    entries = [directory[2 + 12 * n : 14 + 12 * n] for n in range(count)]
    return {struct.unpack_from("<H", entry)[0]: entry for entry in entries}


def nclx_of(path: Path) -> bytes | None:
    """Return primaries, transfer, matrix and range of an AVIF file as in a cICP chunk of PNG, for RGB."""
    with path.open("rb") as file:
        head = file.read(2**16)
    at = head.find(_BOX) + len(_BOX)
    if at < len(_BOX) or at + 4 > len(head):
        return None
    return bytes([head[at + 1], head[at + 3], 0, 1])
