"""Video in, upscaled video out: frames, times, sound, subtitles and chapters all stay.

Decoding, the network and encoding run side by side. What is encoded is put down in parts of a few seconds, so
that an interrupted run goes on where it stopped; the parts become the video when all are there.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from convattn.errors import InputError
from convattn.files import replacing

try:
    import av
except ImportError as error:
    raise InputError("Video needs PyAV, which is not here; run: pip install 'convattn[video]'.") from error

from convattn.video.animation import ANIMATIONS, AnimationFile
from convattn.video.read import FrameFolder, Source, VideoFile
from convattn.video.upscale import Progress, Upscale, upscaled, watched
from convattn.video.write import Parts, assemble, check_target, choose_look

__all__ = ["Progress", "Upscale", "upscale_video"]

_PART = 120  # frames


def upscale_video(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    upscale: Upscale,
    *,
    codec: str = "h264",
    crf: int | None = None,
    fps: float = 25,
    batch: int = 4,
    device: torch.device | str = "cpu",
    label: str = "",
    progress: Callable[[Progress], None] | None = None,
) -> None:
    """Upscale a video, or make one of an animation or a folder of frames.

    All frames keep their times. Sound, subtitles, chapters, titles and covers are copied as they are;
    rotation, color matrix and range stay. Where the codec holds color at half the resolution, an odd width
    or height gets its last pixels repeated. A run that was interrupted leaves a hidden folder beside the
    target; the same call goes on with it.

    Args:
        source: A video, an animation, or a folder of images in the order of their names.
        target: The video to write; a file that exists is replaced once the new one is whole.
        upscale: What upscales the frames.
        codec: A codec or encoder of FFmpeg: h264, hevc, av1, vp9, prores, ffv1, …
        crf: Constant rate factor, less is better; by default one whose loss is hard to see.
        fps: Frames a second of a folder.
        batch: Frames that are upscaled at once.
        device: Where ``upscale`` wants its frames.
        label: Names what upscales; parts by another label are made anew.
        progress: Called after each frame.

    Raises:
        InputError: The source is no video, damaged or cut off, there is no such codec, the target's container
            cannot hold what the source does, or the target cannot be written.
    """
    source, target = Path(source), Path(target)
    if target.exists() and target.samefile(source):
        raise InputError(f"The video would overwrite its original {source}; choose another output.")
    video = _open(source, fps)
    look = choose_look(video, codec, crf)
    with _explained(target):
        check_target(target, video, look)
        parts = Parts(target, repr((av.__version__, video.identity, look, label)))
        finished = len(parts.times)
        new = upscaled(
            video.frames(finished),
            video.encoding.decode,
            upscale,
            lambda rgb: look.encoding.encode(_padded(rgb, look.granularity)),
            batch=batch,
            device=device,
        )
        with closing(watched(new, finished, video.count, progress)) as frames:
            for first in frames:
                parts.add(itertools.chain([first], itertools.islice(frames, _PART - 1)), look)
        with replacing(target) as temporary, _explained(target):
            assemble(temporary, video, parts)
        parts.remove()


def _open(source: Path, fps: float) -> Source:
    if source.is_dir():
        return FrameFolder(source, fps)
    return AnimationFile(source) if source.suffix.lower() in ANIMATIONS else VideoFile(source)


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    """Say in a sentence why a video cannot be written."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise InputError(
            f"{target} cannot be written: {error.strerror or error}; what is finished is kept, and the same "
            "command goes on from there."
        ) from error


def _padded(rgb: Tensor, granularity: tuple[int, int]) -> Tensor:
    """Repeat the last pixels up to the next multiple."""
    down, across = (-side % step for side, step in zip(rgb.shape[2:], granularity, strict=True))
    return F.pad(rgb, (0, across, 0, down), mode="replicate") if down or across else rgb
