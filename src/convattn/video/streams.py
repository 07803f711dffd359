"""What a video file holds besides its video stream, copied or converted for another container."""

import io
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.subtitles.stream import SubtitleStream

from convattn.video.subtitles import ConvertedSubtitles, is_held, text_codec

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

    With a warning, sound and text subtitles that the container cannot hold are encoded again; subtitles of
    images and attachments are left out.

    Args:
        original: The open source, which is closed after its last packet.
        path: Its file, for messages.
        video: The container to write.
    """
    video.metadata.update(metadata_of(original.metadata))
    video.set_chapters(original.chapters())
    copies: dict[int, _Copy | ConvertedSubtitles] = {}
    for stream in original.streams:
        copy = _copy_cover if is_cover(stream) else _COPIES.get(stream.type)
        copied = copy(stream, path, video) if copy else None
        if copied:
            copies[stream.index] = copied
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


def _copy_sound(stream: AudioStream, path: Path, video: OutputContainer) -> _Copy | None:
    try:
        _try_header(stream, video)
        return _Copy(stream, video)
    except (ValueError, av.FFmpegError):
        if not stream.codec_context:
            _warn_of_loss(stream, path, video)
            return None
        codec = _SOUND[video.format.name]
        container, name = video.format.name, codec.removeprefix("lib")
        _warn(f"{path}: a {container} file cannot hold {_name(stream)} sound, which is encoded as {name}.")
        return _EncodedSound(stream, video, codec)


def _copy_subtitles(
    stream: SubtitleStream, path: Path, video: OutputContainer
) -> _Copy | ConvertedSubtitles | None:
    name, container = _name(stream), video.format.name
    with suppress(ValueError, av.FFmpegError):
        if is_held(name, container):
            return _Copy(stream, video)
    codec = text_codec(name, container)
    with suppress(ValueError, av.FFmpegError):
        if codec:
            copy = ConvertedSubtitles(stream, video, codec)
            copy.stream.metadata.update(metadata_of(stream.metadata))
            _warn(f"{path}: a {container} file cannot hold {name} subtitles, which are converted to {codec}.")
            return copy
    _warn_of_loss(stream, path, video)
    return None


def _copy_attachment(stream: Stream, path: Path, video: OutputContainer) -> _Copy | None:
    if video.format.name == "matroska":
        return _Copy(stream, video)
    _warn_of_loss(stream, path, video)
    return None


_COPIES: dict[str, Callable[[Any, Path, OutputContainer], _Copy | ConvertedSubtitles | None]] = {
    "audio": _copy_sound,
    "subtitle": _copy_subtitles,
    "attachment": _copy_attachment,
}
"""What copies a stream, by its type; video and data streams are not copied."""


def _name(stream: Stream) -> str:
    """Return the codec of a stream, or the file name of an attachment."""
    return stream.codec_context.name if stream.codec_context else stream.metadata.get("filename", "unknown")


def _warn_of_loss(stream: Stream, path: Path, video: OutputContainer) -> None:
    container, kind = (
        video.format.name,
        {"subtitle": "subtitles", "audio": "sound"}.get(stream.type, stream.type),
    )
    _warn(f"{path}: a {container} file cannot hold {_name(stream)} {kind}, which .mkv holds; it is left out.")


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=5)


def _try_header(stream: AudioStream, video: OutputContainer) -> None:
    """Raise an error if a container of the same kind, with this stream alone, cannot be begun."""
    with av.open(io.BytesIO(), "w", format=video.format.name) as trial:
        trial.add_stream_from_template(stream, opaque=True)
        trial.start_encoding()


def _copy_cover(stream: Stream, path: Path, video: OutputContainer) -> _Copy | None:
    """Keep a cover as a stream, or in Matroska as an attachment; warn where there is no place for it."""
    if video.format.name in _WITH_COVER_STREAMS:
        return _Copy(stream, video)
    if video.format.name != "matroska":
        _warn(f"{path}: {video.format.name} files hold no cover, which is left out.")
        return None
    kind = _IMAGE_TYPES.get(stream.codec_context.name, "image/jpeg")
    name = stream.metadata.get("filename") or f"cover.{kind[6:].replace('jpeg', 'jpg')}"
    with av.open(path.absolute().as_posix(), metadata_errors="replace") as original:
        packets = original.demux(original.streams[stream.index])
        data = next((bytes(packet) for packet in packets if packet.size), b"")
    video.add_attachment(name, stream.metadata.get("mimetype", kind), data)
    return None


def _packets(
    original: InputContainer, copies: dict[int, _Copy | ConvertedSubtitles]
) -> Generator[Packet, None, None]:
    with original:
        for packet in original.demux([original.streams[index] for index in copies]) if copies else ():
            if packet.stream_index in copies:  # at the end there is an empty packet of every stream
                yield from copies[packet.stream_index].convert(packet)
