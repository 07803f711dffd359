"""Upscale videos: timestamps, sound, subtitles and chapters are kept.

Decoding, the network and encoding run in parallel. The result is encoded in segments of a few seconds, so
that an interrupted run resumes where it stopped; the segments become the video when all are there.
"""

import os
from pathlib import Path

import torch

from convattn.errors import InputError

try:
    import av  # noqa: F401
except ImportError as error:
    raise InputError("Video needs PyAV; run: pip install 'convattn[video]'.") from error

from convattn.progress import Progress, ignore
from convattn.video.job import VideoJob
from convattn.video.stages import Upscale

__all__ = ["Upscale", "VideoJob", "upscale_video"]


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
    progress: Progress = ignore,
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
        progress: Called after each frame with the fraction that is done, up to 1.

    Raises:
        InputError: The source is not a video, is damaged or cut off, there is no such codec, the target's
            container cannot hold the codec, or the target cannot be written.
    """
    source, target = Path(source), Path(target)
    if target.exists() and target.samefile(source):
        raise InputError(f"The video would overwrite its original {source}; choose another output.")
    job = VideoJob(source, target, codec=codec, crf=crf, fps=fps, label=label)
    job.upscale(upscale, batch_size=batch_size, device=device, progress=progress)
