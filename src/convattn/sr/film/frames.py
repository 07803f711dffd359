"""A film enlarged into a folder of numbered pictures."""

import os
import warnings
from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from convattn.errors import InputError
from convattn.sr.film.pipeline import Enlarge, Progress, enlarged, watched
from convattn.sr.film.sources import FilmFile
from convattn.sr.film.yuv import Encoding
from convattn.sr.pictures import Picture, format_of, write_picture

__all__ = ["upscale_to_frames"]

_PQ, _HLG = 16, 18  # transfer characteristics of HDR in ITU-T H.273


def upscale_to_frames(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    enlarge: Enlarge,
    *,
    format: str = "png",
    quality: int = 95,
    existing: str = "refuse",
    batch: int = 4,
    device: torch.device | str = "cpu",
    label: str = "",
    progress: Callable[[Progress], None] | None = None,
) -> Fraction:
    """Enlarge a film into pictures 000001.png, 000002.png and so on.

    They are upright, and have 8 bits a channel or, where the film has more than that, 16. A run that was
    interrupted leaves a hidden file in the folder; the same call goes on with it.

    Args:
        source: A film.
        folder: Where the pictures go.
        enlarge: What enlarges the frames.
        format: Of the pictures: png, jpg, webp, tif or avif.
        quality: 1 to 100, as in :func:`~convattn.sr.pictures.write_picture`.
        existing: Where the folder holds something already: "refuse", "skip" the frames that are there, or
            "overwrite" them.
        batch: Frames that are enlarged at once.
        device: Where ``enlarge`` wants its frames.
        label: Names what enlarges; only a run by the same label is gone on with.
        progress: Called after each frame.

    Returns:
        Frames a second, on average, which the pictures themselves do not tell.

    Raises:
        InputError: The source is no film, damaged or cut off, or the pictures cannot be written.
    """
    film, folder, suffix = FilmFile(Path(source)), Path(folder), "." + format.lower().removeprefix(".")
    format_of("frame" + suffix)
    _warn_of_losses(film)
    job = folder / ".unfinished"
    goes_on = _begin(job, repr((film.identity, suffix, quality, label)), existing)
    kept = set(folder.glob("*" + suffix)) if goes_on or existing == "skip" else set()

    def path_of(number: int) -> Path:
        return folder / f"{number + 1:06}{suffix}"

    encoding = Encoding(None, full=True, depth=8 if film.encoding.depth == 8 else 16)
    new = enlarged(
        (frame for frame in film.frames() if path_of(frame.number) not in kept),
        film.encoding.decode,
        enlarge,
        lambda rgb: encoding.encode(_upright(rgb, film.rotation)),
        batch=batch,
        device=device,
    )
    done = sum(path_of(number) in kept for number in range(film.count))
    with closing(watched(new, done, film.count, progress)) as frames:
        for frame in frames:
            pixels = frame.codes.transpose(1, 2, 0).astype(np.uint8 if encoding.depth == 8 else np.uint16)
            write_picture(Picture(pixels), path_of(frame.number), quality=quality)
    job.unlink()
    return film.rate


def _begin(job: Path, name: str, existing: str) -> bool:
    """Say in the folder what goes on there; gives whether an earlier run had said the same."""
    folder = job.parent
    try:
        if job.is_file() and job.read_text() == name:
            return True
        if existing == "refuse" and folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty; say whether to skip or overwrite what exists there.")
        folder.mkdir(parents=True, exist_ok=True)
        job.write_text(name)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}.") from error
    return False


def _warn_of_losses(film: FilmFile) -> None:
    """What a picture file does not tell."""
    if film.transfer in (_PQ, _HLG):
        warnings.warn(f"{film.path} is HDR, which the pictures hold without saying so.", stacklevel=3)
    if film.aspect not in (None, 0, 1):
        warnings.warn(
            f"{film.path} has pixels that are not square, which the pictures do not tell.",
            stacklevel=3,
        )


def _upright(rgb: Tensor, matrix: list[int] | None) -> Tensor:
    """Turn and mirror pictures (N, 3, H, W) as a display matrix says, by whole quarters of a turn."""
    if matrix is None:
        return rgb
    xx, xy, _, yx, yy = matrix[:5]  # where the axes x and y of the picture point to
    if abs(xx) < abs(xy):
        rgb, xx, yy = rgb.transpose(2, 3), yx, xy
    return rgb.flip([axis for axis, direction in ((3, xx), (2, yy)) if direction < 0])
