"""An upscaled video on its way to the disk: encoded in segments, then put together."""

import heapq
import io
import json
import os
import shutil
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from convattn.errors import InputError
from convattn.files import replacing, short_name
from convattn.inference.video_jobs import CONTAINERS
from convattn.video.settings import EncoderSettings, add_video_stream, open_encoders
from convattn.video.source import Frame, Source
from convattn.video.yuv import with_chroma_as

__all__ = ["Segments", "Times", "assemble", "check_target"]

_SUFFIX = ".parts"

Times = list[tuple[int, int]]
"""Timestamp and duration of each frame, in the source's time base."""


class Segments:
    """Encoded pieces of a video in a hidden folder beside it, each complete or absent.

    Args:
        target: The video that they become.
        source: Names where its frames come from.
        job: Everything that decides what they look like; segments of another job are removed.
    """

    def __init__(self, target: Path, source: str, job: str) -> None:
        self.folder = target.with_name(short_name(f".{target.name}", _SUFFIX))
        self._source = source
        self.record = json.dumps({"source": source, "job": job})
        file = self.folder / "job"
        if not file.is_file() or file.read_text() != self.record:
            self.remove()
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(file) as temporary:
                temporary.write_text(self.record)
        self.times: Times = []
        self._count = 0

    def take_over(self) -> None:
        """Take over the segments of an earlier run, up to the first that is missing."""
        while (times := self.finished(self._count)) is not None:
            self.times += times
            self._count += 1

    def finished(self, number: int) -> Times | None:
        """Return the times of the frames of a segment; None unless it is complete."""
        video, record = self._paths(number)
        with suppress(OSError, ValueError, av.FFmpegError):
            times = json.loads(record.read_text())
            with _opened(video) as segment:
                if sum(packet.size > 0 for packet in segment.demux(video=0)) == len(times):
                    return [(pts, duration) for pts, duration in times]
        return None

    def _paths(self, number: int) -> tuple[Path, Path]:
        return self.folder / f"{number:06}.mkv", self.folder / f"{number:06}.json"

    def add(self, frames: Iterable[Frame], settings: EncoderSettings) -> None:
        """Encode the next segment."""
        self.times += self.encode(self._count, frames, settings)
        self._count += 1

    def encode(self, number: int, frames: Iterable[Frame], settings: EncoderSettings) -> Times:
        """Encode a segment and return the times of its frames."""
        video, record = self._paths(number)
        unfinished = video.with_suffix(".unfinished")
        try:
            times = _write_segment(unfinished, frames, settings)
            with replacing(record) as temporary:
                temporary.write_text(json.dumps(times))
            os.replace(unfinished, video)
        finally:
            unfinished.unlink(missing_ok=True)
        return times

    def add_stream_to(self, video: OutputContainer, source: Source) -> VideoStream:
        """Add the video stream to a video whose packets :meth:`packets` gives."""
        with _opened(self._paths(0)[0]) as segment:
            stream = video.add_stream_from_template(segment.streams.video[0], opaque=True)
        stream.time_base = source.time_base
        stream.metadata.update(source.metadata)
        if source.rotation:
            stream.set_display_matrix(source.rotation)
        return stream

    def packets(self, stream: VideoStream, time_base: Fraction) -> Generator[Packet, None, None]:
        """Yield all packets in decoding order, with the source's timestamps."""
        ranks = self._ranks()
        delay = max(number - rank for number, rank in enumerate(ranks))
        pts = [time for time, _ in self.times]
        end = pts[-1] + self.times[-1][1]
        step = pts[1] - pts[0] if len(pts) > 1 else 1
        dts = [pts[0] - (delay - n) * step for n in range(delay)] + pts[: len(pts) - delay]
        for number, packet in enumerate(self._encoded()):
            packet.pts, packet.dts = pts[ranks[number]], dts[number]
            packet.duration = [*pts, end][ranks[number] + 1] - packet.pts
            packet.time_base, packet.stream = time_base, stream
            yield packet

    def _ranks(self) -> list[int]:
        """Return the index of the frame of each packet, in decoding order."""
        ranks: list[int] = []
        for number in range(self._count):
            times = [packet.pts or 0 for packet in self._encoded_segment(number)]
            ranks += (np.argsort(np.argsort(times)) + len(ranks)).tolist()
        return ranks

    def _encoded(self) -> Generator[Packet, None, None]:
        for number in range(self._count):
            yield from self._encoded_segment(number)

    def _encoded_segment(self, number: int) -> Iterator[Packet]:
        with _opened(self._paths(number)[0]) as segment:
            yield from (packet for packet in segment.demux(video=0) if packet.size)

    def remove(self) -> None:
        """Remove all segments."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_all_of_source(self) -> None:
        """Remove these segments and those that interrupted jobs of the same source left in this folder."""
        self.remove()
        for folder in self.folder.parent.glob(f".*{_SUFFIX}"):
            with suppress(OSError, ValueError, TypeError, KeyError):
                if json.loads((folder / "job").read_text())["source"] == self._source:
                    shutil.rmtree(folder, ignore_errors=True)


def _opened(path: Path) -> av.container.InputContainer:
    return av.open(os.path.abspath(path), "r")


def _video_frame(samples: np.ndarray, settings: EncoderSettings, number: int) -> av.VideoFrame:
    if settings.encoding.depth == 8:
        frame = av.VideoFrame.from_ndarray(samples, "yuv444p")
    else:
        deep = (samples << (16 - settings.encoding.depth)).astype(np.uint16).transpose(1, 2, 0)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(deep), "yuv444p16le")
    frame = with_chroma_as(frame, settings.pixel_format, full=settings.encoding.full)
    frame.pts, frame.time_base = number, 1 / settings.rate
    return frame


def _write_segment(path: Path, frames: Iterable[Frame], settings: EncoderSettings) -> Times:
    """Encode frames into a file and return their times."""
    times: Times = []
    with av.open(os.path.abspath(path), "w", format="matroska") as segment:
        stream = None
        for index, frame in enumerate(frames):
            _, height, width = frame.samples.shape
            if not stream:
                stream = add_video_stream(segment, settings, width, height)
                open_encoders(segment)
            segment.mux(stream.encode(_video_frame(frame.samples, settings, index)))
            times.append((frame.pts, frame.duration))
        if stream:
            segment.mux(stream.encode(None))
    return times


def check_target(target: Path, source: Source, settings: EncoderSettings) -> None:
    """Check before the long work that a video can be written.

    Raises:
        InputError: Its container is unknown or cannot hold the codec.
    """
    container = CONTAINERS.get(target.suffix.lower())
    if container is None:
        raise InputError(f"{target} cannot be written: videos end in {', '.join(CONTAINERS)}.")
    with av.open(io.BytesIO(), "w", format=container) as trial:
        try:
            add_video_stream(trial, settings, *(2 * side for side in source.size))
        except ValueError:
            raise InputError(
                f"{target.suffix} files cannot hold video of the codec {settings.codec}; choose another "
                "codec, or .mkv."
            ) from None
        source.copy_to(trial)
        open_encoders(trial)


def _decoding_time(packet: Packet) -> Fraction:
    return (packet.dts or 0) * packet.time_base


def assemble(path: Path, source: Source, segments: Segments) -> None:
    """Write the video of its segments and of all that is copied from the source."""
    container = CONTAINERS[path.suffix.lower()]
    with av.open(os.path.abspath(path), "w", format=container) as video:
        stream = segments.add_stream_to(video, source)
        copied = source.copy_to(video)
        encoded = segments.packets(stream, source.time_base)
        for packet in heapq.merge(encoded, copied, key=_decoding_time):
            video.mux_one(packet)
