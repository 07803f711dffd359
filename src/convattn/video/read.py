"""Where the frames of a video come from."""

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from convattn.errors import InputError
from convattn.images.io import find_images, read_image
from convattn.video.yuv import BT601, BT709, UNKNOWN, Encoding, with_chroma_as

__all__ = ["Frame", "FrameFolder", "Images", "Source", "VideoFile", "identity_of"]

_DAMAGE = 0.5  # seconds that may be missing at the end of an undamaged video, as its header tells its length
_OF_THE_CONTAINER = ("major_brand", "minor_version", "compatible_brands", "encoder", "duration", "bps")
_STATISTICS = ("_statistics", "number_of_")  # of Matroska's streams
_HDR = ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL", "DYNAMIC_HDR_PLUS", "DOVI_METADATA")
_SRGB = 13  # transfer characteristics in ITU-T H.273


class Frame(NamedTuple):
    """One image of a video.

    Attributes:
        codes: (3, H, W), whole numbers in the video's encoding, uint8 or int32.
        time: When it is shown, in the video's time base.
        duration: How long, as far as the video says so.
        number: Its place in the video, from 0.
    """

    codes: np.ndarray
    time: int
    duration: int
    number: int


class Source(ABC):
    """What can be upscaled.

    Attributes:
        path: Where it lies.
        count: Frames, as far as that is known beforehand.
        rate: Frames a second, on average.
        time_base: The unit of times, in seconds.
        size: Width and height.
        encoding: Of the frames' codes.
        pixel_format: FFmpeg's name of how the codes were stored.
        primaries: By their number in ITU-T H.273.
        transfer: The transfer characteristics, by the same.
        aspect: Width of a pixel over its height; None for unknown.
        rotation: Matrix that turns the image before it is shown, as FFmpeg has it; None for none.
        metadata: Of the video stream.
        identity: Tells whether it is still the same.
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
    identity: list[str]

    @abstractmethod
    def frames(self, skip: int = 0) -> Generator[Frame, None, None]:
        """Give all frames but the first ones."""

    @abstractmethod
    def copy_to(self, video: OutputContainer) -> Iterator[Packet]:
        """Add all but the video to a video: sound, subtitles, attachments, covers, chapters and titles.

        Returns:
            The packets of what was added, which are then to be muxed.

        Raises:
            InputError: The video's container cannot hold one of them.
        """


class VideoFile(Source):
    """The first video stream of a file, and what goes with it; see :class:`Source`.

    Raises:
        InputError: The file is missing, no video, without video or frames, damaged or cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as (container, stream):
            first = self._first_frame(container, stream)
            self.size = first.width, first.height
            self.encoding, self.pixel_format = _encoding_of(first), first.format.name
            self.primaries, self.transfer = int(first.color_primaries), int(first.color_trc)
            self.rotation = _rotation_of(first)
            self.aspect = stream.sample_aspect_ratio
            self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            self.time_base = stream.time_base or 1 / self.rate
            self.metadata = _metadata(stream.metadata)
            if first.interlaced_frame:
                warnings.warn(
                    f"{path} is interlaced; deinterlace it first for a better result.", stacklevel=3
                )
            if sum(not _is_cover(other) for other in container.streams.video) > 1:
                warnings.warn(f"{path} holds several videos; only the first is kept.", stacklevel=3)
            if _has_alpha(first, stream):
                _warn_of_transparency(path)
            if any(first.side_data.get(kind) for kind in _HDR):
                warnings.warn(f"The HDR metadata of {path} is not kept; add it anew.", stacklevel=3)
        self.count = self._count()
        self.identity = identity_of(path)

    @contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        container = self._open()
        with container:
            videos = [stream for stream in container.streams.video if not _is_cover(stream)]
            if not videos:
                raise InputError(f"{self.path} has no video stream, so there is nothing to upscale.")
            videos[0].thread_type = "AUTO"  # type: ignore[assignment]
            yield container, videos[0]

    def _open(self) -> InputContainer:
        if not self.path.is_file():
            raise InputError(f"There is no file {self.path}.")
        try:
            return av.open(str(self.path), "r")
        except (av.FFmpegError, OSError) as error:
            raise InputError(
                f"{self.path} is no video that can be read, or a part of it is missing: {error.strerror}."
            ) from error

    def _first_frame(self, container: InputContainer, stream: VideoStream) -> av.VideoFrame:
        try:
            for frame in container.decode(stream):
                return frame
        except av.FFmpegError as error:
            raise InputError(f"{self.path} cannot be decoded: {error.strerror}.") from error
        raise InputError(f"{self.path} has no frames, so there is nothing to upscale.")

    def _count(self) -> int:
        """Count the frames without decoding them, and find out whether the end is missing."""
        count, end, damaged = 0, Fraction(0), False
        with self._opened() as (container, stream):
            declared, length = stream.frames, _declared_length(container)
            start = Fraction(container.start_time or 0, av.time_base)
            if container.format.name == "avi":  # which counts places for frames, and some may be empty
                damaged, declared = _is_short_riff(self.path), 0
            try:
                for packet in container.demux():
                    if not packet.size:
                        continue
                    damaged |= packet.is_corrupt
                    count += packet.stream_index == stream.index
                    end = max(end, ((packet.pts or 0) + (packet.duration or 0)) * packet.time_base - start)
            except av.FFmpegError:
                damaged = True
        if damaged or count < declared or end < length - _DAMAGE:
            raise InputError(
                f"{self.path} is damaged or cut off: {float(end):.1f} of {float(max(length, end)):.1f} "
                "seconds can be read; get a whole copy of it."
            )
        return count

    def frames(self, skip: int = 0) -> Generator[Frame, None, None]:
        """Decode all frames but the first ones, which are decoded too but not given."""
        last, step = None, max(1, round(1 / self.rate / self.time_base))
        with self._opened() as (container, stream):
            try:
                for number, frame in enumerate(container.decode(stream)):
                    if (frame.width, frame.height) != self.size:
                        raise InputError(
                            f"{self.path} changes its size at frame {number}; cut it there first."
                        )
                    last, step = _moment(frame, last, step), frame.duration or step
                    if number >= skip:
                        yield Frame(_codes(frame, self.encoding), last, step, number)
            except av.FFmpegError as error:
                raise InputError(
                    f"{self.path} cannot be decoded after {float((last or 0) * self.time_base):.1f} seconds: "
                    f"{error.strerror}; repair it first."
                ) from error

    def copy_to(self, video: OutputContainer) -> Iterator[Packet]:
        """Copy every stream that is no video; data such as time codes and sensor readings are left out."""
        original = self._open()
        video.metadata.update(_metadata(original.metadata))
        video.set_chapters(original.chapters())
        copies = {
            stream.index: self._copy_stream(stream, video)
            for stream in original.streams
            if stream.type in ("audio", "subtitle", "attachment") or _is_cover(stream)
        }
        return self._packets(original, copies)

    def _copy_stream(self, stream: Stream, video: OutputContainer) -> Stream:
        try:
            if stream.type == "attachment" and video.format.name != "matroska":
                raise ValueError
            copy = video.add_stream_from_template(stream, opaque=True)
        except ValueError as error:
            name = stream.codec_context.name if stream.codec_context else stream.metadata.get("filename")
            raise InputError(
                f"{video.format.name} files cannot hold the {stream.type} stream of {self.path} ({name}); "
                f"write to {self.path.suffix} as well."
            ) from error
        copy.metadata.update(_metadata(stream.metadata))
        copy.disposition = stream.disposition
        return copy

    @staticmethod
    def _packets(original: InputContainer, copies: dict[int, Stream]) -> Generator[Packet, None, None]:
        with original:
            for packet in original.demux([original.streams[index] for index in copies]) if copies else ():
                if packet.size and packet.dts is not None:
                    packet.stream = copies[packet.stream_index]
                    yield packet


class Images(Source):
    """Frames that are RGB images, with nothing else beside them; see :class:`Source`."""

    primaries, transfer, aspect, rotation = BT709, _SRGB, None, None
    metadata: dict[str, str] = {}  # noqa: RUF012 (never changed)

    def _take_after(self, first: np.ndarray) -> None:
        """Size and depth are those of the first image, (3, H, W)."""
        deep = first.dtype != np.uint8
        self.size = first.shape[2], first.shape[1]
        self.encoding = Encoding(None, full=True, depth=16 if deep else 8)
        self.pixel_format = "rgb48le" if deep else "rgb24"

    def copy_to(self, video: OutputContainer) -> Iterator[Packet]:
        """There is nothing but images."""
        return iter(())


class FrameFolder(Images):
    """Images in the order of their names; see :class:`Source`.

    Args:
        folder: Where they lie.
        fps: How many are shown a second.

    Raises:
        InputError: There are no images, or the rate is not positive.
    """

    def __init__(self, folder: Path, fps: float) -> None:
        if not 0 < fps < float("inf"):
            raise InputError(f"A video cannot have {fps} frames a second; choose a rate such as 25.")
        self.path = folder
        self._transparent = False
        self._images = find_images(folder)
        self._first = self._read(self._images[0])
        self._take_after(self._first)
        self.count = len(self._images)
        self.rate = Fraction(fps).limit_denominator(1001)
        self.time_base = 1 / self.rate
        self.identity = [
            str(fps),
            *(f"{path.resolve()} {os.stat(path).st_mtime_ns}" for path in self._images),
        ]

    def _read(self, path: Path) -> np.ndarray:
        pixels = read_image(path).pixels
        opacity = pixels[..., 3:] if pixels.shape[2] > 2 else pixels[..., 1:]
        if not self._transparent and (opacity < np.iinfo(pixels.dtype).max).any():
            self._transparent = True
            _warn_of_transparency(path)
        rgb = pixels[..., [0, 1, 2] if pixels.shape[2] > 2 else [0, 0, 0]].transpose(2, 0, 1)
        return np.ascontiguousarray(rgb, dtype=np.uint8 if rgb.dtype == np.uint8 else np.int32)

    def frames(self, skip: int = 0) -> Generator[Frame, None, None]:
        """Read all images but the first ones."""
        for number in range(skip, self.count):
            codes = self._read(self._images[number])
            if (codes.shape, codes.dtype) != (self._first.shape, self._first.dtype):
                raise InputError(
                    f"{self._images[number]} differs from {self._images[0]} in its size or depth; all "
                    "frames of a video must be alike."
                )
            yield Frame(codes, number, 1, number)


def identity_of(path: Path) -> list[str]:
    """What changes when a file does."""
    status = path.stat()
    return [str(path.resolve()), str(status.st_size), str(status.st_mtime_ns)]


def _is_cover(stream: Stream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _has_alpha(frame: av.VideoFrame, stream: VideoStream) -> bool:
    """Whether a video is transparent anywhere; VP8 and VP9 keep that apart, where FFmpeg does not look."""
    apart = any(key.lower() == "alpha_mode" and value == "1" for key, value in stream.metadata.items())
    return apart or any(component.is_alpha for component in frame.format.components)


def _warn_of_transparency(path: Path) -> None:
    warnings.warn(
        f"{path} is partly transparent; the result is not, and shows the colors beneath.", stacklevel=4
    )


def _declared_length(container: InputContainer) -> Fraction:
    """How many seconds of video and sound there should be; chapters and subtitles may go on beyond."""
    streams = [*container.streams.video, *container.streams.audio]
    lengths = [
        stream.duration * stream.time_base for stream in streams if stream.duration and stream.time_base
    ]
    return max(lengths, default=Fraction(container.duration or 0, av.time_base))


def _is_short_riff(path: Path) -> bool:
    """Whether a file of the RIFF kind is shorter than its head says."""
    with path.open("rb") as file:
        head = file.read(8)
    return int.from_bytes(head[4:], "little") + len(head) > path.stat().st_size


def _metadata(metadata: dict[str, str]) -> dict[str, str]:
    """All but what the old container says of itself."""
    return {
        key: value
        for key, value in metadata.items()
        if key.lower() not in _OF_THE_CONTAINER and not key.lower().startswith(_STATISTICS)
    }


def _moment(frame: av.VideoFrame, last: int | None, step: int) -> int:
    """When a frame is shown; sloppy videos do not say it, or say it wrongly."""
    if frame.pts is not None and (last is None or frame.pts > last):
        return frame.pts
    return 0 if last is None else last + step


def _rotation_of(frame: av.VideoFrame) -> list[int] | None:
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    return None if matrix is None else np.frombuffer(bytes(matrix), np.int32).tolist()


def _encoding_of(frame: av.VideoFrame) -> Encoding:
    """How a video's numbers stand for colors; where it does not say so, as players assume."""
    name, depth = frame.format.name, max(component.bits for component in frame.format.components)
    if frame.format.is_rgb or frame.format.has_palette:
        return Encoding(None, full=True, depth=8 if depth == 8 else 16)
    matrix = int(frame.colorspace)
    if matrix in (0, UNKNOWN):
        matrix = BT709 if frame.height >= 720 or frame.width >= 1280 else BT601
    full = int(frame.color_range) == 2 or name.startswith(("yuvj", "gray", "ya"))
    return Encoding(matrix, full, depth)


def _codes(frame: av.VideoFrame, encoding: Encoding) -> np.ndarray:
    """Read (3, H, W); color that has less resolution is interpolated."""
    if encoding.matrix is None:
        deep = encoding.depth > 8
        rgb = frame.reformat(format="rgb48le" if deep else "rgb24").to_ndarray().transpose(2, 0, 1)
        return np.ascontiguousarray(rgb, dtype=np.int32 if deep else np.uint8)
    deep = encoding.depth > 8
    codes = with_chroma_as(frame, "yuv444p16le" if deep else "yuv444p", full=encoding.full).to_ndarray()
    if not deep:
        return codes
    return np.ascontiguousarray(codes.transpose(2, 0, 1), dtype=np.int32) >> (16 - encoding.depth)
