"""Makes small videos and reads what is in them."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

av = pytest.importorskip("av")

TIMES = [0, 40, 80, 130, 170, 300, 340, 380, 420, 500, 540, 580, 620, 700, 701, 740, 780, 820, 860, 900]
"""Milliseconds of a variable frame rate; the last frame lasts 40."""

MILLISECOND = Fraction(1, 1000)
CHAPTERS = [
    {"id": id, "start": start, "end": end, "time_base": MILLISECOND, "metadata": {"title": title}}
    for id, start, end, title in [(1, 0, 400, "one"), (2, 400, 900, "two")]
]


def double(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def image(number: int, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """Smooth colors that move, (H, W, 3)."""
    y, x = np.mgrid[:height, :width]
    rgb = [128 + 90 * np.sin((x + k * y + 3 * number) / (9 + 2 * k)) for k in range(3)]
    return np.stack(rgb, -1).round().astype(np.uint8)


def make_video(
    path: Path,
    *,
    times: Sequence[int] = TIMES,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    matrix: int = 1,
    full: bool = False,
    sound: str | None = "aac",
    subtitles: Path | None = None,
    rotation: int | None = None,
    options: dict[str, str] | None = None,
    fast_start: bool = False,
    draw: Callable[[int, int, int], NDArray[np.uint8]] = image,
) -> Path:
    """A video with a title, chapters, frames at the given milliseconds and as much of a tone."""
    with av.open(str(path), "w", container_options={"movflags": "faststart"} if fast_start else {}) as video:
        video.metadata["title"] = "A test"
        stream = video.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        stream.codec_context.time_base = MILLISECOND
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        if rotation:
            stream.set_display_rotation(rotation)
        audio = _add_sound(video, sound) if sound else None
        text = _add_stream_like(video, subtitles) if subtitles else None
        video.set_chapters(CHAPTERS)
        write_frames(video, stream, [draw(number, *size) for number in range(len(times))], times)
        if audio:
            _write_tone(video, audio, times[-1] + 40)
        if subtitles:
            _copy_packets(video, text, subtitles)
    return path


def write_frames(
    video: Any, stream: Any, images: Sequence[NDArray[np.uint8]], times: Sequence[int] | None = None
) -> None:
    """Encode images (H, W, 3), at given milliseconds or at the rate of the stream."""
    context = stream.codec_context
    for number, pixels in enumerate(images):
        frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
        if times is not None:
            frame = frame.reformat(
                format=stream.pix_fmt, dst_colorspace=context.colorspace, dst_color_range=context.color_range
            )
            frame.pts, frame.time_base = times[number], MILLISECOND
        video.mux(stream.encode(frame))
    video.mux(stream.encode(None))


def _add_sound(video: Any, codec: str) -> Any:
    audio = video.add_stream(codec, rate=48000)
    audio.metadata["language"] = "deu"
    return audio


def _write_tone(video: Any, audio: Any, milliseconds: int) -> None:
    for block in range(int(milliseconds * 48 / 1024)):
        wave = 0.3 * np.sin(np.arange(block * 1024, (block + 1) * 1024) * 2 * math.pi * 440 / 48000)
        tone = av.AudioFrame.from_ndarray(np.stack([wave, wave]).astype(np.float32), "fltp", "stereo")
        tone.sample_rate, tone.pts, tone.time_base = 48000, block * 1024, Fraction(1, 48000)
        video.mux(audio.encode(tone))
    video.mux(audio.encode(None))


def _add_stream_like(video: Any, path: Path) -> Any:
    with av.open(str(path)) as source:
        return video.add_stream_from_template(source.streams[0])


def _copy_packets(video: Any, stream: Any, path: Path) -> None:
    with av.open(str(path)) as source:
        for packet in source.demux():
            if packet.size:
                packet.stream = stream
                video.mux(packet)


def make_anamorphic_video(path: Path, codec: str) -> Path:
    """Five frames whose pixels are wider than high."""
    with av.open(str(path), "w") as video:
        stream = video.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        write_frames(video, stream, [image(number) for number in range(5)])
    return path


def shown_at(path: Path) -> list[float]:
    """When each frame is shown, in seconds."""
    with av.open(str(path)) as video:
        return [float(frame.pts * frame.time_base) for frame in video.decode(video=0)]


def images_of(path: Path) -> NDArray[np.int_]:
    """(frames, H, W, 3) by FFmpeg's own conversion."""
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]).astype(int)


def left_behind(folder: Path) -> list[str]:
    """Names of the hidden files and folders."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
