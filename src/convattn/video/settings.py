"""How an encoder is set up so that the result looks like its source."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.codec.codec import UnknownCodecError, find_best_pix_fmt_of_list
from av.container import OutputContainer
from av.video.stream import VideoStream

from convattn.errors import InputError
from convattn.video.hdr import HLG, PQ, HdrMetadata, encoder_option
from convattn.video.source import Source
from convattn.video.yuv import BT709, BT2020, Encoding

__all__ = ["EncoderSettings", "add_video_stream", "choose_settings", "open_encoders"]

_DEFAULT_CODEC, _DEFAULT_FOR = "h264", {".webm": "vp9"}
_CRF = {"libx264": (17, 51), "libx265": (19, 51), "libsvtav1": (22, 63), "libvpx-vp9": (22, 63)}
"""Constant rate factors: one whose loss is hard to see, and the largest."""

_QUIET = {"libx265": ("x265-params", "log-level=none")}
_LARGEST_TIME_BASE = 65535  # MPEG-4's
_LAMBDA = 118  # FFmpeg's unit of quantiser scales
_FASTEST = 500  # frames per second that the segments' milliseconds tell apart


@dataclass(frozen=True)
class EncoderSettings:
    """Everything that an encoder is given.

    Attributes:
        codec: FFmpeg's name of the encoder.
        options: Its own options.
        pixel_format: FFmpeg's name.
        encoding: Of the samples that it receives.
        rate: Frames per second, on average.
        aspect: Width of a pixel of the source over its height; None if unknown.
        source_size: Width and height of the source.
        primaries: Number in ITU-T H.273.
        transfer: Number there.
    """

    codec: str
    options: tuple[tuple[str, str], ...]
    pixel_format: str
    encoding: Encoding
    rate: Fraction
    aspect: Fraction | None
    source_size: tuple[int, int]
    primaries: int
    transfer: int

    @property
    def granularity(self) -> tuple[int, int]:
        """What height and width must be multiples of, for subsampled chroma or the codec."""
        format, least = av.VideoFormat(self.pixel_format, 256, 256), 2 if "prores" in self.codec else 1
        return max(256 // format.chroma_height(256), least), max(256 // format.chroma_width(256), least)

    def aspect_of(self, width: int, height: int) -> Fraction | None:
        """Return the aspect of a pixel by which a result of some size is shown in the shape of its source.

        A source of square pixels that is stretched on purpose keeps square pixels.
        """
        if self.aspect in (None, 0, 1):
            return self.aspect or None
        stretch = Fraction(width * self.source_size[1], height * self.source_size[0])
        is_rounding = abs(stretch - 1) < Fraction(1, min(self.source_size))
        return self.aspect if is_rounding else (self.aspect / stretch).limit_denominator(1000)


def choose_settings(source: Source, target: Path, codec: str | None, crf: int | None) -> EncoderSettings:
    """Keep the look of the source as far as a codec can.

    Args:
        source: What will be upscaled. RGB becomes BT.709 in the limited range, with chroma at half the
            resolution as nearly all players need it.
        target: The video to write, whose container decides about the codec if none is given.
        codec: A codec or encoder of FFmpeg.
        crf: Constant rate factor; None for a good one.

    Raises:
        InputError: There is no such encoder, it has no such rate factor, or it cannot hold HDR.
    """
    codec = codec or _DEFAULT_FOR.get(target.suffix.lower(), _DEFAULT_CODEC)
    encoder = _encoder(codec)
    format = _pixel_format(source, encoder, codec)
    own = source.encoding
    depth = av.VideoFormat(format).components[0].bits
    if source.transfer in (PQ, HLG) and depth < 10:
        raise InputError(
            f"{source.path} is HDR, which needs 10 bits per sample; {codec} has {depth} here. Choose hevc."
        )
    of_rgb = BT2020 if source.primaries == BT2020 else BT709
    matrix, full = (of_rgb, False) if own.matrix is None else (own.matrix, own.full)
    inverse = (1 / source.rate).limit_denominator(_LARGEST_TIME_BASE)
    return EncoderSettings(
        codec=encoder.name,
        options=_options(encoder.name, codec, crf, source),
        pixel_format=format,
        encoding=Encoding(matrix, full, depth),
        rate=min(1 / inverse, Fraction(_FASTEST)),
        aspect=source.aspect,
        source_size=source.size,
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


def _pixel_format(source: Source, encoder: av.Codec, codec: str) -> str:
    """Return the format of the encoder that is nearest to the source's."""
    wanted = source.pixel_format.replace("yuvj", "yuv")
    if source.encoding.matrix is None or not wanted.startswith("yuv"):
        wanted = "yuv420p" if source.encoding.depth == 8 else "yuv420p10le"
    formats = [format.name for format in encoder.video_formats or [] if format.name.startswith("yuv")]
    best, _ = find_best_pix_fmt_of_list([name for name in formats if not name.startswith("yuva")], wanted)
    if best is None:
        raise InputError(f"The codec {codec} cannot hold the colors of video; choose another such as h264.")
    return str(best.name)


def _options(encoder: str, codec: str, crf: int | None, source: Source) -> tuple[tuple[str, str], ...]:
    """Return the encoder's own options: the rate factor, and HDR metadata."""
    default, largest = _CRF.get(encoder, (None, 0))
    if crf is not None and default is None:
        raise InputError(f"The codec {codec} has no constant rate factor; leave --crf out.")
    if crf is not None and not 0 <= crf <= largest:
        raise InputError(f"--crf of the codec {codec} is 0 to {largest}, not {crf}.")
    options = {} if default is None else {"crf": str(default if crf is None else crf)}
    for name, value in filter(None, (_QUIET.get(encoder), encoder_option(encoder, source.hdr))):
        options[name] = f"{options[name]}:{value}" if name in options else value
    if source.hdr != HdrMetadata() and encoder_option(encoder, source.hdr) is None:
        warnings.warn(
            f"{codec} does not hold the HDR10 metadata of {source.path}, which is lost; hevc holds it.",
            stacklevel=4,
        )
    return tuple(options.items())


def add_video_stream(
    container: OutputContainer, settings: EncoderSettings, width: int, height: int
) -> VideoStream:
    """Add a stream that is encoded as the settings say."""
    stream = container.add_stream(settings.codec, rate=settings.rate, options=dict(settings.options))
    assert isinstance(stream, VideoStream)
    stream.height, stream.width = height, width
    stream.pix_fmt = settings.pixel_format
    context = stream.codec_context
    context.time_base = 1 / settings.rate
    context.colorspace = BT709 if settings.encoding.matrix is None else settings.encoding.matrix
    context.color_range = 2 if settings.encoding.full else 1
    context.color_primaries, context.color_trc = settings.primaries, settings.transfer
    if not settings.options:  # the finest quantiser but one, for codecs without a constant rate factor
        context.qscale, context.global_quality = True, 2 * _LAMBDA
    aspect = settings.aspect_of(width, height)
    if aspect:
        context.sample_aspect_ratio = aspect
    return stream


def open_encoders(container: OutputContainer) -> None:
    """Open the encoders of all streams, which report nothing but errors."""
    with _libsvtav1_is_quiet():
        container.start_encoding()


@contextmanager
def _libsvtav1_is_quiet() -> Iterator[None]:
    """Set what libsvtav1, which has no option for it, reads from the environment when it is opened."""
    before = os.environ.get("SVT_LOG")
    os.environ.setdefault("SVT_LOG", "1")
    try:
        yield
    finally:
        if before is None:
            del os.environ["SVT_LOG"]
