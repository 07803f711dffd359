"""Film in, enlarged film out: frames, times, sound, subtitles and chapters all stay.

Decoding, the network and encoding run side by side. What is encoded is put down in parts of a few seconds, so
that an interrupted run goes on where it stopped; the parts become the film when all are there.
"""

import itertools
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from convattn.errors import InputError
from convattn.files import replacing

try:
    import av
except ImportError as error:
    raise InputError("Film needs PyAV, which is not here; run: pip install 'convattn[film]'.") from error

from convattn.sr.film.pipeline import ahead, batches
from convattn.sr.film.sources import FilmFile, Frame, FrameFolder, Source
from convattn.sr.film.target import Look, Parts, assemble, check_target, choose_look

__all__ = ["Enlarge", "Progress", "upscale_film"]

Enlarge = Callable[[Tensor], Tensor]
"""(N, 3, H, W) in [0, 1] to (N, 3, s·H, s·W)."""

_PART = 120  # frames


class Progress(NamedTuple):
    """How far a film is.

    Attributes:
        done: Frames that are finished, also by earlier runs.
        total: Frames of the film.
        per_second: Frames that this run finishes in a second.
        seconds_left: By that.
    """

    done: int
    total: int
    per_second: float
    seconds_left: float


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
    """Enlarge a film, or make one of a folder of frames.

    All frames keep their times. Sound, subtitles, chapters, titles and covers are copied as they are;
    rotation, colour matrix and range stay. Where the codec holds colour at half the resolution, an odd width
    or height gets its last pixels repeated. A run that was interrupted leaves a hidden folder beside the
    target; the same call goes on with it.

    Args:
        source: A film, or a folder of pictures in the order of their names.
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
    film: Source = FrameFolder(source, fps) if source.is_dir() else FilmFile(source)
    look = choose_look(film, codec, crf)
    with _explained(target):
        check_target(target, film, look)
        parts = Parts(target, repr((av.__version__, film.identity, look, label)))
        finished = len(parts.times)
        enlarged = _enlarged(film, finished, look, enlarge, batch, torch.device(device))
        with closing(_watched(enlarged, finished, film.count, progress)) as frames:
            for first in frames:
                parts.add(itertools.chain([first], itertools.islice(frames, _PART - 1)), look)
        with replacing(target) as temporary, _explained(target):
            assemble(temporary, film, parts)
        parts.remove()


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


def _enlarged(
    film: Source, skip: int, look: Look, enlarge: Enlarge, batch: int, device: torch.device
) -> Generator[Frame, None, None]:
    """Give enlarged frames in the target's encoding, while those to come are enlarged and decoded."""

    def groups() -> Generator[list[Frame], None, None]:
        with closing(ahead(batches(film.frames(skip), batch))) as decoded, torch.inference_mode():
            for group in decoded:
                codes = torch.stack([torch.from_numpy(frame.codes) for frame in group]).to(device)
                rgb = _padded(enlarge(film.encoding.decode(codes)), look.granularity)
                large = look.encoding.encode(rgb).cpu().numpy()
                yield [frame._replace(codes=new) for frame, new in zip(group, large, strict=True)]

    with closing(ahead(groups())) as ready:
        for group in ready:
            yield from group


def _padded(rgb: Tensor, granularity: tuple[int, int]) -> Tensor:
    """Repeat the last pixels up to the next multiple."""
    down, across = (-side % step for side, step in zip(rgb.shape[2:], granularity, strict=True))
    return F.pad(rgb, (0, across, 0, down), mode="replicate") if down or across else rgb


def _watched(
    frames: Generator[Frame, None, None], done: int, total: int, progress: Callable[[Progress], None] | None
) -> Generator[Frame, None, None]:
    """Say how far it is whenever a frame has been taken."""
    start = time.monotonic()
    with closing(frames):
        for number, frame in enumerate(frames, 1):
            yield frame
            if progress:
                rate = number / max(time.monotonic() - start, 1e-9)
                left = max(total - done - number, 0)
                progress(Progress(done + number, done + number + left, rate, left / rate))
