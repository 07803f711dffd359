"""Text subtitles that another container holds in a codec of its own."""

from fractions import Fraction
from typing import TYPE_CHECKING, cast

from av.container import OutputContainer
from av.packet import Packet
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle, SubtitleSet

if TYPE_CHECKING:
    from av.subtitles.codeccontext import SubtitleCodecContext

__all__ = ["ConvertedSubtitles", "is_held", "text_codec"]

_MILLISECOND = Fraction(1, 1000)
_TEXT_CODECS = {"mp4": "mov_text", "mov": "mov_text", "webm": "webvtt", "matroska": "subrip"}
_TEXTS = ("mov_text", "webvtt", "subrip", "srt", "ass", "ssa", "text")
_OF_MPEG_TS = ("dvbsub", "dvb_subtitle", "dvb_teletext", "libzvbi_teletextdec")
_SECONDS = 3  # that a line is shown where nothing is said


def text_codec(codec: str, container: str) -> str | None:
    """Return the codec that a container's text subtitles have; None if these subtitles are images."""
    return _TEXT_CODECS.get(container) if codec in _TEXTS else None


def is_held(codec: str, container: str) -> bool:
    """Return whether a container has a name for these subtitles, where FFmpeg would write any."""
    return container != "mpegts" or codec in _OF_MPEG_TS


class ConvertedSubtitles:
    """A stream of text subtitles that is decoded and encoded with another codec.

    Args:
        stream: Of the original.
        video: The container to write.
        codec: One of FFmpeg's.
    """

    def __init__(self, stream: SubtitleStream, video: OutputContainer, codec: str) -> None:
        self._decoder = cast("SubtitleCodecContext", stream.codec_context)
        self._decoder.open(strict=False)
        self.stream = video.add_stream(codec)
        self._encoder = cast("SubtitleCodecContext", self.stream.codec_context)
        self._encoder.subtitle_header = self._decoder.subtitle_header
        self._encoder.time_base = self.stream.time_base = _MILLISECOND
        self.stream.disposition = stream.disposition

    def convert(self, packet: Packet) -> list[Packet]:
        """Return the packets that a packet of the original becomes."""
        if not packet.size or packet.pts is None or not packet.time_base:
            return []
        subtitles = self._decoder.decode2(packet)
        start = round(packet.pts * packet.time_base / _MILLISECOND)
        length = round((packet.duration or 0) * packet.time_base / _MILLISECOND) or 1000 * _SECONDS
        lines = [rect.ass for rect in subtitles.rects if isinstance(rect, AssSubtitle)] if subtitles else []
        return [self._encoded(line, start, length) for line in lines if line]

    def _encoded(self, line: bytes, start: int, length: int) -> Packet:
        packet = self._encoder.encode_subtitle(SubtitleSet.create(line, 0, length, start))
        packet.pts = packet.dts = start
        packet.duration, packet.time_base, packet.stream = length, _MILLISECOND, self.stream
        return packet
