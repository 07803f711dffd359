"""The size of an image or a video, from its header: nothing is decoded before its size is known."""

from pathlib import Path
from typing import NamedTuple

import pyvips

from convattn.errors import InputError
from convattn.serve.kinds import Kind, sniff
from convattn.serve.settings import Limits

__all__ = ["Measure", "TooLargeError", "check", "measure"]

_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


class TooLargeError(InputError):
    """An image has more pixels, or a video more frames, than the server allows."""


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
        InputError: The file is damaged or no image or video.
    """
    with path.open("rb") as file:
        head = file.read(2**16)
    kind = sniff(head)
    if kind is None:
        raise InputError(f"{path} is no image or video that can be read.")
    if kind.is_video:
        return _measure_video(path)
    try:
        image = pyvips.Image.new_from_source(pyvips.Source.new_from_file(str(path)), "")
        turned = image.get_typeof("orientation") and image.get("orientation") in _TURNED
    except pyvips.Error as error:
        raise InputError(f"{path} is damaged; get a whole copy of it.") from error
    size = (image.height, image.width) if turned else (image.width, image.height)
    return Measure(*size, _frames(kind, head, image))


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
        TooLargeError: It is not.
    """
    if measure.width * measure.height > limits.pixels:
        raise TooLargeError(
            f"The image has {measure.width}×{measure.height} pixels; this server takes at most "
            f"{limits.pixels / 1e6:g} megapixels. Make it smaller first."
        )
    frames_in_memory = 1 if measure.is_video else measure.frames
    if frames_in_memory * result_size[0] * result_size[1] > limits.result_pixels:
        raise TooLargeError(
            f"The result would have {result_size[0]}×{result_size[1]} pixels; this server makes at most "
            f"{limits.result_pixels / 1e6:g} megapixels. Choose a smaller scale."
        )
    if measure.frames > limits.frames:
        raise TooLargeError(
            f"The video has {measure.frames} frames; this server takes at most {limits.frames}. Cut it first."
        )
