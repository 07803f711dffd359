"""Upscale videos: timestamps, sound, subtitles and chapters are kept.

Decoding, the network and encoding run in parallel. The result is encoded in segments of a few seconds, so
that an interrupted run resumes where it stopped; the segments become the video when all are there.
"""

import itertools
import os
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from convattn.errors import InputError
from convattn.files import remove_litter, replacing
from convattn.inference.video_jobs import ANIMATIONS

try:
    import av
except ImportError as error:
    raise InputError("Video needs PyAV; run: pip install 'convattn[video]'.") from error

from convattn.video.animation import AnimationFile
from convattn.video.frame_folder import FrameFolder
from convattn.video.read import VideoFile
from convattn.video.segments import Segments, assemble, check_target
from convattn.video.settings import EncoderSettings, choose_settings
from convattn.video.source import Frame, Source
from convattn.video.stages import Progress, Upscale, upscale_frames, with_progress

__all__ = ["Progress", "Upscale", "upscale_video"]

_SEGMENT = 120  # frames


def upscale_video(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    upscale: Upscale,
    *,
    codec: str | None = None,
    crf: int | None = None,
    fps: float | None = None,
    batch_size: int = 4,
    device: torch.device | str = "cpu",
    label: str = "",
    progress: Callable[[Progress], None] | None = None,
) -> None:
    """Upscale a video, or make one of an animation or a folder of frames.

    All frames keep their timestamps. Sound, subtitles, chapters, titles and covers are copied; rotation,
    color matrix, range and HDR metadata are kept. Where the codec subsamples chroma, an odd width or height
    gets its last pixels repeated. An interrupted run leaves a hidden folder beside the target, from which the
    same call resumes.

    Args:
        source: A video, an animation, or a folder of images in natural order.
        target: The video to write; one that exists is replaced once the new one is complete.
        upscale: Upscales the frames.
        codec: A codec or encoder of FFmpeg: h264, hevc, av1, vp9, prores, ffv1, …; by default h264, or vp9
            for .webm.
        crf: Constant rate factor, less is better; by default one whose loss is hard to see.
        fps: Frames per second of a folder; by default its timestamps.txt, or 25.
        batch_size: Frames that are upscaled at once.
        device: Where ``upscale`` expects its frames.
        label: Names the model and its settings; segments of another label are encoded again.
        progress: Called after each frame.

    Raises:
        InputError: The source is not a video, is damaged or cut off, there is no such codec, the target's
            container cannot hold what the source does, or the target cannot be written.
    """
    source, target = Path(source), Path(target)
    if target.exists() and target.samefile(source):
        raise InputError(f"The video would overwrite its original {source}; choose another output.")
    video = _open(source, fps)
    settings = choose_settings(video, target, codec, crf)
    with _explained(target):
        check_target(target, video, settings)
        remove_litter(target.parent)
        segments = Segments(target, source, repr((av.__version__, video.identity, settings, label)))
        finished = len(segments.times)
        new = upscale_frames(
            video.frames(finished),
            video.encoding.decode,
            upscale,
            lambda rgb: settings.encoding.encode(_padded(rgb, settings.granularity)),
            batch_size=batch_size,
            device=device,
        )
        _encode(with_progress(new, finished, video.count, progress), segments, settings)
        with replacing(target) as temporary, _explained(target), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said already when the target was checked
            assemble(temporary, video, segments)
        segments.remove_all_of_source()


def _encode(frames: Generator[Frame, None, None], segments: Segments, settings: EncoderSettings) -> None:
    """Encode frames in segments."""
    with closing(frames):
        for first in frames:
            segments.add(itertools.chain([first], itertools.islice(frames, _SEGMENT - 1)), settings)


def _open(source: Path, fps: float | None) -> Source:
    if source.is_dir():
        return FrameFolder(source, fps)
    return AnimationFile(source) if source.suffix.lower() in ANIMATIONS else VideoFile(source)


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    """Turn errors of FFmpeg and the disk into a sentence."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise InputError(
            f"{target} cannot be written: {error.strerror or error}; finished segments are kept, and the "
            "same command resumes from there."
        ) from error


def _padded(rgb: Tensor, granularity: tuple[int, int]) -> Tensor:
    """Repeat the last pixels up to the next multiple."""
    down, across = (-side % step for side, step in zip(rgb.shape[2:], granularity, strict=True))
    return F.pad(rgb, (0, across, 0, down), mode="replicate") if down or across else rgb
