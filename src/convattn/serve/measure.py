"""The size of an image or a video, from its header: nothing is decoded before its size is known."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import PIL.Image
import pyvips

from convattn.images.io import formats
from convattn.images.io.pillow import raster_formats
from convattn.serve.jxl import size_of_jxl
from convattn.serve.kinds import OTHER, Kind, sniff
from convattn.serve.problems import RejectedError
from convattn.serve.settings import Limits

__all__ = ["Measure", "check", "measure"]

_ORIENTATION = 0x0112  # tag of EXIF
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


class Measure(NamedTuple):
    """What a header says.

    Attributes:
        width: In pixels, upright.
        height: In pixels, upright.
        frames: 1 for a still image.
        is_video: Whether it is a video, whose frames are never in memory all at once.
    """

    width: int
    height: int
    frames: int = 1
    is_video: bool = False


def measure(path: Path) -> Measure:
    """Read the header of a file.

    Raises:
        RejectedError: The file is damaged, or no image or video.
    """
    with path.open("rb") as file:
        head = file.read(2**16)
    kind = sniff(head)
    if kind is None:
        raise RejectedError("file-unreadable")
    if kind.is_video:
        return _measure_video(path)
    if kind == OTHER:
        return _measure_other(path, head)
    try:
        image = pyvips.Image.new_from_source(pyvips.Source.new_from_file(str(path)), "")
        turned = image.get_typeof("orientation") and image.get("orientation") in _TURNED
    except pyvips.Error as error:
        raise RejectedError("file-damaged") from error
    size = (image.height, image.width) if turned else (image.width, image.height)
    return Measure(*size, _frames(kind, head, image))


def _measure_other(path: Path, head: bytes) -> Measure:
    """Measure an image of a format that Pillow decodes; see :mod:`convattn.images.io.pillow`."""
    format = formats.sniff(path)
    if format and format not in formats.PLUGINS:
        raise RejectedError("file-unreadable")
    if format:
        _load_plugin(format)
    if format == "JPEG XL":
        size = size_of_jxl(head)
        if size is None:
            raise RejectedError("file-damaged")
        return Measure(*size)
    return Measure(*_size_by_pillow(path, format))


def _load_plugin(format: str) -> None:
    module, extra = formats.PLUGINS[format]
    try:
        importlib.import_module(module)
    except ImportError:
        raise RejectedError("decoder-missing", format=format, install=f"pip install '{extra}'") from None


def _size_by_pillow(path: Path, format: str | None) -> tuple[int, int]:
    """Width and height by a header, upright; nothing is decoded."""
    try:
        if format == "HEIC":
            from pillow_heif import open_heif

            return open_heif(path).size
        with _any_size(), PIL.Image.open(path, formats=raster_formats()) as image:
            width, height = image.size
            return (height, width) if image.getexif().get(_ORIENTATION) in _TURNED else (width, height)
    except Exception as error:  # parsers raise whatever a damaged file leads to
        raise RejectedError("file-unreadable") from error


@contextmanager
def _any_size() -> Iterator[None]:
    """Lift Pillow's limit, so that a header tells the size of an image that is then refused."""
    most, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        PIL.Image.MAX_IMAGE_PIXELS = most


def _frames(kind: Kind, head: bytes, image: pyvips.Image) -> int:
    """How many frames an animation has; of a TIFF or an AVIF file of several pages the first is upscaled."""
    if kind.suffix in (".gif", ".webp"):
        return image.get_n_pages()
    chunk = head.partition(b"IDAT")[0].partition(b"acTL")[2]  # of an animated PNG libvips knows one frame
    return max(1, int.from_bytes(chunk[:4], "big")) if kind.suffix == ".png" else 1


def _measure_video(path: Path) -> Measure:
    from convattn.video.read import VideoFile

    video = VideoFile(path)
    return Measure(*video.size, max(video.count, 1), is_video=True)


def check(measure: Measure, result_size: tuple[int, int], limits: Limits) -> None:
    """Check that an image or a video is within the limits.

    Args:
        measure: Of the input.
        result_size: Width and height of the result.
        limits: What the server allows.

    Raises:
        RejectedError: It is not.
    """
    if measure.width * measure.height > limits.pixels:
        raise _too_large("image-too-large", (measure.width, measure.height), limits.pixels)
    frames_in_memory = 1 if measure.is_video else measure.frames
    if frames_in_memory * result_size[0] * result_size[1] > limits.result_pixels:
        raise _too_large("result-too-large", result_size, limits.result_pixels)
    if measure.frames > limits.frames:
        raise RejectedError("too-many-frames", frames=measure.frames, most=limits.frames)


def _too_large(code: str, size: tuple[int, int], most: int) -> RejectedError:
    return RejectedError(code, width=size[0], height=size[1], megapixels=most / 1e6)
