"""What a video file holds besides its video stream, copied or converted for another container."""

import io
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition, Stream

from convattn.errors import InputError

__all__ = ["copy_streams", "is_cover", "metadata_of"]

_OF_THE_CONTAINER = ("major_brand", "minor_version", "compatible_brands", "encoder", "duration", "bps")
_STATISTICS = ("_statistics", "number_of_")  # of Matroska's streams
_SOUND = {"webm": "libopus", "mp4": "aac", "mov": "aac", "mpegts": "aac", "matroska": "flac"}
"""What sound is encoded with that a container cannot hold as it is."""

_OPUS_RATE = 48000
_SOUND_RATES = (8000, 11025, 16000, 22050, 32000, 44100, 48000)
_WITH_COVER_STREAMS = ("mp4", "mov")
_IMAGE_TYPES = {"mjpeg": "image/jpeg", "png": "image/png", "bmp": "image/bmp", "gif": "image/gif"}


def is_cover(stream: Stream) -> bool:
    """Return whether a stream is a still image that players show for the file."""
    return bool(stream.disposition & Disposition.attached_pic)


def metadata_of(metadata: dict[str, str]) -> dict[str, str]:
    """Return all metadata but what the old container says of itself."""
    return {
        key: value
        for key, value in metadata.items()
        if key.lower() not in _OF_THE_CONTAINER and not key.lower().startswith(_STATISTICS)
    }


def copy_streams(original: InputContainer, path: Path, video: OutputContainer) -> Iterator[Packet]:
    """Add titles, chapters and every stream that is no video; data such as time codes are left out.

    Sound that the container cannot hold is encoded again, with a warning.

    Args:
        original: The open source, which is closed after its last packet.
        path: Its file, for messages.
        video: The container to write.

    Raises:
        InputError: The container cannot hold subtitles or an attachment.
    """
    video.metadata.update(metadata_of(original.metadata))
    video.set_chapters(original.chapters())
    copies: dict[int, _Copy] = {}
    for stream in original.streams:
        if is_cover(stream):
            cover = _copy_cover(stream, path, video)
            if cover:
                copies[stream.index] = cover
        elif stream.type in ("audio", "subtitle", "attachment"):
            copies[stream.index] = _copy_stream(stream, path, video)
    return _packets(original, copies)


class _Copy:
    """A stream that is copied as it is."""

    def __init__(self, stream: Stream, video: OutputContainer) -> None:
        self.stream = video.add_stream_from_template(stream, opaque=True)  # type: ignore[type-var]
        self.stream.metadata.update(metadata_of(stream.metadata))
        self.stream.disposition = stream.disposition
        self._is_cover = is_cover(stream)

    def convert(self, packet: Packet) -> list[Packet]:
        """Return the packets that a packet of the original becomes; an empty one ends the stream."""
        if packet.size and self._is_cover and packet.dts is None:
            packet.pts = packet.dts = 0
        if not packet.size or packet.dts is None:
            return []
        packet.stream = self.stream
        return [packet]


class _EncodedSound(_Copy):
    """A sound stream that is decoded and encoded with another codec."""

    def __init__(self, stream: AudioStream, video: OutputContainer, codec: str) -> None:
        rate = (
            _OPUS_RATE if codec == "libopus" else min(_SOUND_RATES, key=lambda rate: abs(rate - stream.rate))
        )
        layout = {1: "mono", 2: "stereo"}.get(stream.channels, stream.layout.name)
        self.sound: Any = video.add_stream(codec, rate=rate, layout=layout)
        self.sound.metadata.update(metadata_of(stream.metadata))
        self.sound.disposition = stream.disposition
        self._decoder = stream
        self._resampler: av.AudioResampler | None = None

    def convert(self, packet: Packet) -> list[Packet]:
        """Decode, resample to the encoder's format, and encode."""
        packets: list[Packet] = []
        for frame in self._decoder.codec_context.decode(packet if packet.size else None):
            for part in self._resampled(frame):
                packets += self.sound.encode(part)
        if not packet.size:
            for part in self._resampler.resample(None) if self._resampler else ():
                packets += self.sound.encode(part)
            packets += self.sound.encode(None)
        return [packet for packet in packets if packet.size]

    def _resampled(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        if self._resampler is None:
            context = self.sound.codec_context
            context.open(strict=False)
            self._resampler = av.AudioResampler(
                context.format, context.layout, context.rate, context.frame_size or None
            )
        return self._resampler.resample(frame)


def _copy_stream(stream: Stream, path: Path, video: OutputContainer) -> _Copy:
    try:
        if stream.type == "attachment" and video.format.name != "matroska":
            raise ValueError
        _try_header(stream, video)
        return _Copy(stream, video)
    except (ValueError, av.FFmpegError) as error:
        name = stream.codec_context.name if stream.codec_context else stream.metadata.get("filename")
        if isinstance(stream, AudioStream) and stream.codec_context:
            codec = _SOUND[video.format.name]
            warnings.warn(
                f"{path}: a {video.format.name} file cannot hold {name} sound, which is encoded as "
                f"{codec.removeprefix('lib')}.",
                stacklevel=5,
            )
            return _EncodedSound(stream, video, codec)
        raise InputError(
            f"{video.format.name} files cannot hold the {stream.type} stream of {path} ({name}); "
            f"write to {path.suffix} as well."
        ) from error


def _try_header(stream: Stream, video: OutputContainer) -> None:
    """Raise an error if a container of the same kind, with this stream alone, cannot be begun."""
    if stream.type == "audio":
        with av.open(io.BytesIO(), "w", format=video.format.name) as trial:
            trial.add_stream_from_template(stream, opaque=True)  # type: ignore[type-var]
            trial.start_encoding()


def _copy_cover(stream: Stream, path: Path, video: OutputContainer) -> _Copy | None:
    """Keep a cover as a stream, or in Matroska as an attachment; warn where there is no place for it."""
    if video.format.name in _WITH_COVER_STREAMS:
        return _Copy(stream, video)
    if video.format.name != "matroska":
        warnings.warn(f"{path}: {video.format.name} files hold no cover, which is left out.", stacklevel=5)
        return None
    kind = _IMAGE_TYPES.get(stream.codec_context.name, "image/jpeg")
    name = stream.metadata.get("filename") or f"cover.{kind[6:].replace('jpeg', 'jpg')}"
    with av.open(path.absolute().as_posix(), metadata_errors="replace") as original:
        packets = original.demux(original.streams[stream.index])
        data = next((bytes(packet) for packet in packets if packet.size), b"")
    video.add_attachment(name, stream.metadata.get("mimetype", kind), data)
    return None


def _packets(original: InputContainer, copies: dict[int, _Copy]) -> Generator[Packet, None, None]:
    with original:
        for packet in original.demux([original.streams[index] for index in copies]) if copies else ():
            if packet.stream_index in copies:  # at the end there is an empty packet of every stream
                yield from copies[packet.stream_index].convert(packet)
