"""Where the frames of a video come from."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from av.container import OutputContainer
from av.packet import Packet

from convattn.video.hdr import HdrMetadata
from convattn.video.yuv import BT709, Encoding

__all__ = ["Frame", "ImageSource", "Source", "identity_of", "warn_of_transparency"]

_SRGB = 13  # transfer characteristics in ITU-T H.273


class Frame(NamedTuple):
    """One frame of a video.

    Attributes:
        samples: (3, H, W), whole numbers in the video's encoding, uint8 or int32.
        pts: When it is shown, in the video's time base.
        duration: For how long, as far as the video says so.
        number: Its index in the video, from 0.
    """

    samples: np.ndarray
    pts: int
    duration: int
    number: int


class Source(ABC):
    """A sequence of frames that can be upscaled.

    Attributes:
        path: The file or folder.
        count: Number of frames.
        rate: Frames per second, on average.
        time_base: The unit of timestamps, in seconds.
        size: Width and height.
        encoding: Of the frames' samples.
        pixel_format: FFmpeg's name of how the samples were stored.
        primaries: Number of the color primaries in ITU-T H.273.
        transfer: Number of the transfer characteristics there.
        aspect: Width of a pixel over its height; None if unknown.
        rotation: Matrix that turns the frame before it is shown, as in FFmpeg; None for none.
        metadata: Of the video stream.
        hdr: Mastering display and light levels, where the video has them.
        identity: Changes when the source does.
    """

    path: Path
    count: int
    rate: Fraction
    time_base: Fraction
    size: tuple[int, int]
    encoding: Encoding
    pixel_format: str
    primaries: int
    transfer: int
    aspect: Fraction | None
    rotation: list[int] | None
    metadata: dict[str, str]
    hdr: HdrMetadata = HdrMetadata()
    identity: list[str]

    @abstractmethod
    def frames(self, skip: int = 0) -> Generator[Frame, None, None]:
        """Yield all frames but the first ``skip``."""

    @abstractmethod
    def copy_to(self, video: OutputContainer) -> Iterator[Packet]:
        """Add everything but the video stream: sound, subtitles, attachments, covers, chapters and titles.

        What the container cannot hold is converted or left out, with a warning.

        Returns:
            The packets of what was added, which are then to be muxed.
        """


class ImageSource(Source):
    """Frames that are RGB images, with nothing else beside them; see :class:`Source`."""

    primaries, transfer, aspect, rotation = BT709, _SRGB, None, None
    metadata: dict[str, str] = {}  # noqa: RUF012 (never changed)

    def _describe(self, first: np.ndarray) -> None:
        """Set size and depth to those of the first image, (3, H, W)."""
        deep = first.dtype != np.uint8
        self.size = first.shape[2], first.shape[1]
        self.encoding = Encoding(None, full=True, depth=16 if deep else 8)
        self.pixel_format = "rgb48le" if deep else "rgb24"

    def copy_to(self, video: OutputContainer) -> Iterator[Packet]:
        """Return no packets: there are only images."""
        return iter(())


def warn_of_transparency(path: Path) -> None:
    """Warn that a source is partly transparent, which its video is not."""
    warnings.warn(
        f"{path} is partly transparent; the result is not, and shows the colors beneath.", stacklevel=4
    )


def identity_of(path: Path) -> list[str]:
    """Return what changes when a file does: its place, size and time of change."""
    status = path.stat()
    return [str(path.resolve()), str(status.st_size), str(status.st_mtime_ns)]
