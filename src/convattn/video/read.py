"""The frames of a video file."""

import os
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from convattn.errors import InputError
from convattn.video.hdr import hdr_metadata_of
from convattn.video.source import Frame, Source, identity_of, warn_of_transparency
from convattn.video.streams import copy_streams, is_cover, metadata_of
from convattn.video.yuv import BT601, BT709, UNKNOWN, Encoding, with_chroma_as

__all__ = ["VideoFile"]

_DAMAGE = 0.5  # seconds that may be missing at the end of an undamaged video, as its header tells its length
_MATROSKA = "matroska"  # whose header tells the time of the end, not the length


class VideoFile(Source):
    """The first video stream of a file and what accompanies it; see :class:`Source`.

    Raises:
        InputError: The file is missing, is not a video, has no frames, is damaged or cut off.
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
            self.metadata = metadata_of(stream.metadata)
            if first.interlaced_frame:
                warnings.warn(
                    f"{path} is interlaced; deinterlace it first for a better result.", stacklevel=3
                )
            if sum(not is_cover(other) for other in container.streams.video) > 1:
                warnings.warn(f"{path} holds several videos; only the first is kept.", stacklevel=3)
            if _has_alpha(first, stream):
                warn_of_transparency(path)
            self.hdr = hdr_metadata_of(first, path)
        self._times: list[int | None] = []
        self._keys: list[tuple[int, int]] = []
        self.count = self._count()
        self.identity = identity_of(path)

    @contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        container = self._open()
        with container:
            videos = [stream for stream in container.streams.video if not is_cover(stream)]
            if not videos:
                raise InputError(f"{self.path} has no video stream, so there is nothing to upscale.")
            videos[0].thread_type = "AUTO"  # type: ignore[assignment]
            yield container, videos[0]

    def _open(self) -> InputContainer:
        if not self.path.is_file():
            raise InputError(f"There is no file {self.path}.")
        try:
            # Absolute, because a relative name with a colon would be a URL. Titles may have any encoding.
            return av.open(os.path.abspath(self.path), "r", metadata_errors="replace")
        except (av.FFmpegError, OSError) as error:
            raise InputError(
                f"{self.path} is not a video that can be read, or a part of it is missing: {error.strerror}."
            ) from error

    def _first_frame(self, container: InputContainer, stream: VideoStream) -> av.VideoFrame:
        try:
            for frame in container.decode(stream):
                return frame
        except av.FFmpegError as error:
            raise InputError(f"{self.path} cannot be decoded: {error.strerror}.") from error
        raise InputError(f"{self.path} has no frames, so there is nothing to upscale.")

    def _count(self) -> int:
        """Count the frames without decoding them, and check that the end is there."""
        count, end, damaged = 0, Fraction(0), False
        with self._opened() as (container, stream):
            declared, length = stream.frames, _declared_length(container)
            start = Fraction(container.start_time or 0, av.time_base)
            if _MATROSKA in container.format.name:
                start = Fraction(0)
            if container.format.name == "avi":  # which counts places for frames, and some may be empty
                damaged, declared = _is_short_riff(self.path), 0
            try:
                for packet in container.demux():
                    if not packet.size:
                        continue
                    damaged |= packet.is_corrupt
                    if packet.stream_index == stream.index:
                        count += 1
                        self._index(packet)
                    end = max(end, ((packet.pts or 0) + (packet.duration or 0)) * packet.time_base - start)
            except av.FFmpegError:
                damaged = True
        if damaged or count < declared or end < length - _DAMAGE:
            raise InputError(
                f"{self.path} is damaged or cut off: {float(end):.1f} of {float(max(length, end)):.1f} "
                "seconds can be read; get a whole copy of it."
            )
        return count

    def _index(self, packet: Packet) -> None:
        """Note when the frame of a packet is shown, and where decoding can begin."""
        self._times.append(packet.pts)
        if packet.is_keyframe and packet.pts is not None:
            self._keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))

    def can_be_cut(self) -> bool:
        """Return whether every frame has a timestamp of its own, by which it can be found."""
        return None not in self._times and len(set(self._times)) == self.count

    def cut(self, start: int, stop: int) -> Generator[Frame, None, None]:
        """Yield the frames from ``start`` to ``stop``, decoded from the key frame before them.

        Raises:
            LookupError: The frames found there are not those expected; only the whole video can be decoded.
        """
        times = sorted(time for time in self._times if time is not None)
        step = max(1, round(1 / self.rate / self.time_base))
        with self._opened() as (container, stream):
            starts = [dts for pts, dts in self._keys if pts <= times[start]]
            if start and starts:
                container.seek(max(starts), stream=stream)
            frames = (frame for frame in container.decode(stream) if (frame.pts or 0) >= times[start])
            for number in range(start, stop):
                frame = next(frames, None)
                if frame is None or frame.pts != times[number] or (frame.width, frame.height) != self.size:
                    raise LookupError
                step = frame.duration or step
                yield Frame(_samples(frame, self.encoding), times[number], step, number)
            if stop == self.count and next(frames, None):
                raise LookupError

    def frames(self, skip: int = 0) -> Generator[Frame, None, None]:
        """Yield all frames but the first ``skip``, which are decoded all the same."""
        if skip == self.count:
            return
        last, step = None, max(1, round(1 / self.rate / self.time_base))
        with self._opened() as (container, stream):
            try:
                for number, frame in enumerate(container.decode(stream)):
                    if (frame.width, frame.height) != self.size:
                        raise InputError(
                            f"{self.path} changes its size at frame {number}; cut it there first."
                        )
                    last, step = _pts(frame, last, step), frame.duration or step
                    if number >= skip:
                        yield Frame(_samples(frame, self.encoding), last, step, number)
            except av.FFmpegError as error:
                raise InputError(
                    f"{self.path} cannot be decoded after {float((last or 0) * self.time_base):.1f} seconds: "
                    f"{error.strerror}; repair it first."
                ) from error

    def copy_to(self, video: OutputContainer) -> Iterator[Packet]:
        """Copy every stream that is no video; see :func:`~convattn.video.streams.copy_streams`."""
        return copy_streams(self._open(), self.path, video)


def _has_alpha(frame: av.VideoFrame, stream: VideoStream) -> bool:
    """Return whether a video has an alpha channel; VP8 and VP9 keep it apart, where FFmpeg does not look."""
    apart = any(key.lower() == "alpha_mode" and value == "1" for key, value in stream.metadata.items())
    return apart or any(component.is_alpha for component in frame.format.components)


def _declared_length(container: InputContainer) -> Fraction:
    """Return the seconds of video and sound that the header tells; chapters and subtitles may be longer."""
    streams = [*container.streams.video, *container.streams.audio]
    lengths = [
        stream.duration * stream.time_base for stream in streams if stream.duration and stream.time_base
    ]
    return max(lengths, default=Fraction(container.duration or 0, av.time_base))


def _is_short_riff(path: Path) -> bool:
    """Return whether a RIFF file is shorter than its header says."""
    with path.open("rb") as file:
        head = file.read(8)
    return int.from_bytes(head[4:], "little") + len(head) > path.stat().st_size


def _pts(frame: av.VideoFrame, last: int | None, step: int) -> int:
    """Return the timestamp of a frame; where it is missing or not later than the last, the next one."""
    if frame.pts is not None and (last is None or frame.pts > last):
        return frame.pts
    return 0 if last is None else last + step


def _rotation_of(frame: av.VideoFrame) -> list[int] | None:
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    return None if matrix is None else np.frombuffer(bytes(matrix), np.int32).tolist()


def _encoding_of(frame: av.VideoFrame) -> Encoding:
    """Return how a video's samples encode colors; where it does not say so, as players assume."""
    name, depth = frame.format.name, max(component.bits for component in frame.format.components)
    if frame.format.is_rgb or frame.format.has_palette:
        return Encoding(None, full=True, depth=8 if depth == 8 else 16)
    matrix = int(frame.colorspace)
    if matrix in (0, UNKNOWN):
        matrix = BT709 if frame.height >= 720 or frame.width >= 1280 else BT601
    full = int(frame.color_range) == 2 or name.startswith(("yuvj", "gray", "ya"))
    return Encoding(matrix, full, depth)


def _samples(frame: av.VideoFrame, encoding: Encoding) -> np.ndarray:
    """Return the samples (3, H, W) of a frame; subsampled chroma is interpolated."""
    if encoding.matrix is None:
        deep = encoding.depth > 8
        rgb = frame.reformat(format="rgb48le" if deep else "rgb24").to_ndarray().transpose(2, 0, 1)
        return np.ascontiguousarray(rgb, dtype=np.int32 if deep else np.uint8)
    deep = encoding.depth > 8
    samples = with_chroma_as(frame, "yuv444p16le" if deep else "yuv444p", full=encoding.full).to_ndarray()
    if not deep:
        return samples
    return np.ascontiguousarray(samples.transpose(2, 0, 1), dtype=np.int32) >> (16 - encoding.depth)
