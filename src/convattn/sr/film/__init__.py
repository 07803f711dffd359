"""Film in, enlarged film out: frames, times, sound, subtitles and chapters all stay.

Decoding, the network and encoding run side by side. What is encoded is put down in parts of a few seconds, so
that an interrupted run goes on where it stopped; the parts become the film when all are there.
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
    raise InputError("Film needs PyAV, which is not here; run: pip install 'convattn[film]'.") from error

from convattn.sr.film.animation import ANIMATIONS, AnimationFile
from convattn.sr.film.pipeline import Enlarge, Progress, enlarged, watched
from convattn.sr.film.sources import FilmFile, FrameFolder, Source
from convattn.sr.film.target import Parts, assemble, check_target, choose_look

__all__ = ["Enlarge", "Progress", "upscale_film"]

_PART = 120  # frames


def upscale_film(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    enlarge: Enlarge,
    *,
    codec: str = "h264",
    crf: int | None = None,
    fps: float = 25,
    batch: int = 4,
    device: torch.device | str = "cpu",
    label: str = "",
    progress: Callable[[Progress], None] | None = None,
) -> None:
    """Enlarge a film, or make one of an animation or a folder of frames.

    All frames keep their times. Sound, subtitles, chapters, titles and covers are copied as they are;
    rotation, colour matrix and range stay. Where the codec holds colour at half the resolution, an odd width
    or height gets its last pixels repeated. A run that was interrupted leaves a hidden folder beside the
    target; the same call goes on with it.

    Args:
        source: A film, an animation, or a folder of pictures in the order of their names.
        target: The film to write; a file that exists is replaced once the new one is whole.
        enlarge: What enlarges the frames.
        codec: A codec or encoder of FFmpeg: h264, hevc, av1, vp9, prores, ffv1, …
        crf: Constant rate factor, less is better; by default one whose loss is hard to see.
        fps: Frames a second of a folder.
        batch: Frames that are enlarged at once.
        device: Where ``enlarge`` wants its frames.
        label: Names what enlarges; parts by another label are made anew.
        progress: Called after each frame.

    Raises:
        InputError: The source is no film, damaged or cut off, there is no such codec, the target's container
            cannot hold what the source does, or the target cannot be written.
    """
    source, target = Path(source), Path(target)
    if target.exists() and target.samefile(source):
        raise InputError(f"The film would overwrite its original {source}; choose another output.")
    film = _open(source, fps)
    look = choose_look(film, codec, crf)
    with _explained(target):
        check_target(target, film, look)
        parts = Parts(target, repr((av.__version__, film.identity, look, label)))
        finished = len(parts.times)
        new = enlarged(
            film.frames(finished),
            film.encoding.decode,
            enlarge,
            lambda rgb: look.encoding.encode(_padded(rgb, look.granularity)),
            batch=batch,
            device=device,
        )
        with closing(watched(new, finished, film.count, progress)) as frames:
            for first in frames:
                parts.add(itertools.chain([first], itertools.islice(frames, _PART - 1)), look)
        with replacing(target) as temporary, _explained(target):
            assemble(temporary, film, parts)
        parts.remove()


def _open(source: Path, fps: float) -> Source:
    if source.is_dir():
        return FrameFolder(source, fps)
    return AnimationFile(source) if source.suffix.lower() in ANIMATIONS else FilmFile(source)


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    """Say in a sentence why a film cannot be written."""
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
