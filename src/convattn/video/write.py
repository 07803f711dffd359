"""How an upscaled video is written: encoded in parts, then put together with what the original holds."""

import heapq
import io
import json
import os
import shutil
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.codec import UnknownCodecError, find_best_pix_fmt_of_list
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from convattn.errors import InputError
from convattn.video.read import Frame, Source
from convattn.video.yuv import BT709, Encoding, with_chroma_as

__all__ = ["Look", "Parts", "Times", "assemble", "choose_look"]

_CRF = {"libx264": 17, "libx265": 19, "libsvtav1": 22, "libvpx-vp9": 22}  # hard to tell from the original
_QUIET = {"libx265": (("x265-params", "log-level=none"),)}
os.environ.setdefault("SVT_LOG", "1")  # nothing but errors from libsvtav1, which has no option for it
_LARGEST_TIME_BASE = 65535  # MPEG-4's
_LAMBDA = 118  # FFmpeg's unit of quantiser scales
_FASTEST = 500  # frames a second that the parts' milliseconds tell apart

_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".ts": "mpegts"}
"""FFmpeg's names of the containers in which every frame has a time of its own, by suffix."""

Times = list[tuple[int, int]]
"""When each frame is shown and for how long, in the source's time base."""


@dataclass(frozen=True)
class Look:
    """All that an encoder is told.

    Attributes:
        codec: FFmpeg's name of the encoder.
        options: Its own options.
        pixel_format: FFmpeg's name.
        encoding: Of the codes that it gets.
        rate: Frames a second, on average.
        aspect: Width of a pixel over its height.
        primaries: Number in ITU-T H.273.
        transfer: The same.
    """

    codec: str
    options: tuple[tuple[str, str], ...]
    pixel_format: str
    encoding: Encoding
    rate: Fraction
    aspect: Fraction | None
    primaries: int
    transfer: int

    @property
    def granularity(self) -> tuple[int, int]:
        """What height and width must be multiples of, for color that has less resolution, or the codec."""
        format, least = av.VideoFormat(self.pixel_format, 256, 256), 2 if "prores" in self.codec else 1
        return max(256 // format.chroma_height(256), least), max(256 // format.chroma_width(256), least)


def choose_look(source: Source, codec: str, crf: int | None) -> Look:
    """Keep what the source looks like as far as a codec can.

    Args:
        source: What will be upscaled. RGB becomes BT.709 in the limited range, with color at half the
            resolution as nearly all players want it.
        codec: A codec or encoder of FFmpeg.
        crf: Constant rate factor; None for a good one.

    Raises:
        InputError: There is no such encoder, or it knows no constant rate factor.
    """
    encoder = _encoder(codec)
    if crf is not None and encoder.name not in _CRF:
        raise InputError(f"The codec {codec} has no constant rate factor; leave --crf out.")
    crf = _CRF.get(encoder.name) if crf is None else crf
    own = source.encoding
    wanted = source.pixel_format.replace("yuvj", "yuv")
    if own.matrix is None or not wanted.startswith("yuv"):
        wanted = "yuv420p" if own.depth == 8 else "yuv420p10le"
    formats = [format.name for format in encoder.video_formats or [] if format.name.startswith("yuv")]
    best, _ = find_best_pix_fmt_of_list([name for name in formats if not name.startswith("yuva")], wanted)
    if best is None:
        raise InputError(f"The codec {codec} cannot hold the colors of video; choose another such as h264.")
    matrix, full = (BT709, False) if own.matrix is None else (own.matrix, own.full)
    inverse = (1 / source.rate).limit_denominator(_LARGEST_TIME_BASE)
    return Look(
        codec=encoder.name,
        options=() if crf is None else (("crf", str(crf)), *_QUIET.get(encoder.name, ())),
        pixel_format=best.name,
        encoding=Encoding(matrix, full, av.VideoFormat(best.name).components[0].bits),
        rate=min(1 / inverse, Fraction(_FASTEST)),
        aspect=source.aspect,
        primaries=source.primaries,
        transfer=source.transfer,
    )


def _encoder(name: str) -> av.Codec:
    try:
        encoder = av.Codec(name, "w")
    except UnknownCodecError:
        encoder = None
    if encoder is None or encoder.type != "video":
        raise InputError(f"There is no video codec {name} here; choose h264, hevc, av1, vp9, prores or ffv1.")
    return encoder


class Parts:
    """Encoded pieces of a video in a hidden folder beside it, each whole or not there.

    Args:
        target: The video that they will be.
        job: All that decides what they look like; parts of another job are thrown away.
    """

    def __init__(self, target: Path, job: str) -> None:
        self._folder = target.with_name(f".{target.name}.parts")
        note = self._folder / "job"
        if not note.is_file() or note.read_text() != job:
            self.remove()
            self._folder.mkdir(parents=True)
            note.write_text(job)
        self.times: Times = []
        self._count = 0
        while self._add_finished():
            pass

    def _add_finished(self) -> bool:
        """Take over the next part of an earlier run, if it is whole."""
        video, note = self._paths(self._count)
        with suppress(OSError, ValueError, av.FFmpegError):
            times = json.loads(note.read_text())
            with av.open(str(video)) as part:
                if sum(packet.size > 0 for packet in part.demux(video=0)) == len(times):
                    self.times += [(time, duration) for time, duration in times]
                    self._count += 1
                    return True
        return False

    def _paths(self, number: int) -> tuple[Path, Path]:
        return self._folder / f"{number:06}.mkv", self._folder / f"{number:06}.json"

    def add(self, frames: Iterable[Frame], look: Look) -> None:
        """Encode the next part."""
        video, note = self._paths(self._count)
        unfinished = video.with_suffix(".unfinished")
        times = []
        with av.open(str(unfinished), "w", format="matroska") as part:
            stream = None
            for number, frame in enumerate(frames):
                stream = stream or _add_stream(part, look, frame.codes.shape)
                part.mux(stream.encode(_video_frame(frame.codes, look, number)))
                times.append((frame.time, frame.duration))
            if stream:
                part.mux(stream.encode(None))
        note.write_text(json.dumps(times))
        os.replace(unfinished, video)
        self.times += times
        self._count += 1

    def add_stream_to(self, video: OutputContainer, source: Source) -> VideoStream:
        """Add the video stream to a video whose packets :meth:`packets` gives."""
        with av.open(str(self._paths(0)[0])) as part:
            stream = video.add_stream_from_template(part.streams.video[0], opaque=True)
        stream.time_base = source.time_base
        stream.metadata.update(source.metadata)
        if source.rotation:
            stream.set_display_matrix(source.rotation)
        return stream

    def packets(self, stream: VideoStream, time_base: Fraction) -> Generator[Packet, None, None]:
        """Give all packets in the order of decoding, with the source's times."""
        ranks = self._ranks()
        delay = max(number - rank for number, rank in enumerate(ranks))
        shown = [time for time, _ in self.times]
        end = shown[-1] + self.times[-1][1]
        step = shown[1] - shown[0] if len(shown) > 1 else 1
        decoded = [shown[0] - (delay - n) * step for n in range(delay)] + shown[: len(shown) - delay]
        for number, packet in enumerate(self._encoded()):
            packet.pts, packet.dts = shown[ranks[number]], decoded[number]
            packet.duration = [*shown, end][ranks[number] + 1] - packet.pts
            packet.time_base, packet.stream = time_base, stream
            yield packet

    def _ranks(self) -> list[int]:
        """Which of the shown frames each packet is, in the order of decoding."""
        ranks: list[int] = []
        for number in range(self._count):
            times = [packet.pts or 0 for packet in self._encoded_part(number)]
            ranks += (np.argsort(np.argsort(times)) + len(ranks)).tolist()
        return ranks

    def _encoded(self) -> Generator[Packet, None, None]:
        for number in range(self._count):
            yield from self._encoded_part(number)

    def _encoded_part(self, number: int) -> Iterator[Packet]:
        with av.open(str(self._paths(number)[0])) as part:
            yield from (packet for packet in part.demux(video=0) if packet.size)

    def remove(self) -> None:
        """Throw all away."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _add_stream(part: OutputContainer, look: Look, shape: tuple[int, ...]) -> VideoStream:
    stream = part.add_stream(look.codec, rate=look.rate, options=dict(look.options))
    assert isinstance(stream, VideoStream)
    stream.height, stream.width = shape[1:]
    stream.pix_fmt = look.pixel_format
    context = stream.codec_context
    context.time_base = 1 / look.rate
    context.colorspace = BT709 if look.encoding.matrix is None else look.encoding.matrix
    context.color_range = 2 if look.encoding.full else 1
    context.color_primaries, context.color_trc = look.primaries, look.transfer
    if not look.options:  # the finest steps but one of those that know no constant rate factor
        context.qscale, context.global_quality = True, 2 * _LAMBDA
    if look.aspect:
        context.sample_aspect_ratio = look.aspect
    return stream


def _video_frame(codes: np.ndarray, look: Look, number: int) -> av.VideoFrame:
    if look.encoding.depth == 8:
        frame = av.VideoFrame.from_ndarray(codes, "yuv444p")
    else:
        deep = (codes << (16 - look.encoding.depth)).astype(np.uint16).transpose(1, 2, 0)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(deep), "yuv444p16le")
    frame = with_chroma_as(frame, look.pixel_format, full=look.encoding.full)
    frame.pts, frame.time_base = number, 1 / look.rate
    return frame


def check_target(target: Path, source: Source, look: Look) -> None:
    """Find out before the long work whether a video can be written as it is asked for.

    Raises:
        InputError: Its container is unknown, or cannot hold the codec or one of the streams to be copied.
    """
    kind = _FORMATS.get(target.suffix.lower())
    if kind is None:
        raise InputError(f"{target} cannot be written: videos end in {', '.join(_FORMATS)}.")
    with av.open(io.BytesIO(), "w", format=kind) as trial:
        try:
            _add_stream(trial, look, (3, 2 * source.size[1], 2 * source.size[0]))
        except ValueError:
            raise InputError(
                f"{target.suffix} files cannot hold video of the codec {look.codec}; choose another, or .mkv."
            ) from None
        source.copy_to(trial)
        trial.start_encoding()


def _decoding_time(packet: Packet) -> Fraction:
    return (packet.dts or 0) * packet.time_base


def assemble(path: Path, source: Source, parts: Parts) -> None:
    """Write the video of its parts and of all that is copied from the source."""
    with av.open(str(path), "w", format=_FORMATS[path.suffix.lower()]) as video:
        stream = parts.add_stream_to(video, source)
        copied = source.copy_to(video)
        encoded = parts.packets(stream, source.time_base)
        for packet in heapq.merge(encoded, copied, key=_decoding_time):
            video.mux_one(packet)
