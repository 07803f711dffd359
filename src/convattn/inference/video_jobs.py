"""Which inputs are videos or animations, and where each result goes; nothing is decoded here."""

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from convattn.errors import InputError
from convattn.files import find_files, natural_key
from convattn.images.io import READABLE
from convattn.inference.batch_jobs import without_earlier_results
from convattn.inference.results import Job, place_results
from convattn.inference.upscaler import Upscaler

__all__ = [
    "CONTAINERS",
    "VIDEOS",
    "record_label",
    "split_inputs",
    "suffix_of_video",
]

CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".ts": "mpegts",
    ".m2ts": "mpegts",
    ".mts": "mpegts",
}
"""FFmpeg's names of the containers that can be written, by suffix; each frame has its own timestamp there."""

_ONLY_READ = ".avi .mpg .mpeg .m2v .vob .wmv .asf .flv .f4v .3gp .3g2 .ogv .mxf .mk3d"

VIDEOS = (*CONTAINERS, *_ONLY_READ.split())
"""The suffixes of videos, in lower case."""


def record_label(upscaler: Upscaler, *, model: str | None, precision: str, tile: int | None) -> str:
    """Return what names the model and its settings in the record of a video's segments.

    Equal labels let a cluster resume what one machine began, and the other way round.
    """
    return f"{model} {upscaler.request} {precision} {'auto' if tile is None else tile}"


def split_inputs(
    inputs: Sequence[str], output: str, format: str | None = None
) -> tuple[list[Job[Path]], list[str]]:
    """Split inputs into videos with their results, and images.

    A single video goes to ``output`` itself, which may be a folder for its frames; so does a single animation
    or folder of frames if ``output`` is a video. Otherwise each video becomes a video in the folder
    ``output``, in its own container if that can be written, and in Matroska if not.

    Args:
        inputs: Files, folders and glob patterns.
        output: A file or a folder.
        format: That of images, which one video does not have.

    Raises:
        InputError: Several inputs would become one video, or it is given a format.
    """
    target = Path(output)
    if _is_video(target):
        if format:
            raise InputError(f"{output} is one file; leave the format out, or give a folder for images.")
        if len(inputs) > 1:
            raise InputError(f"Several inputs cannot all become {output}; give a folder instead.")
        return [Job(Path(inputs[0]), target)], []
    if len(inputs) == 1 and _is_video(Path(inputs[0])):
        return [Job(Path(inputs[0]), target)], []
    videos: list[tuple[Path, Path]] = []
    images: list[str] = []
    for given in inputs:
        files = without_earlier_results(_files_of(given), Path(given), target)
        found = [path for path in files if _is_video(path)]
        start = Path(given) if Path(given).is_dir() else None
        videos += [(path, path.relative_to(start) if start else Path(path.name)) for path in found]
        images += _images_of(given, files, found)
    return list(place_results(videos, target, lambda _, place: suffix_of_video(place))), images


def suffix_of_video(place: PurePath) -> str:
    """Return the suffix of a result: that of the video, or .mkv where its container cannot be written."""
    return place.suffix if place.suffix.lower() in CONTAINERS else ".mkv"


def _files_of(given: str) -> list[Path]:
    path = Path(given)
    if path.is_dir():
        return find_files(path)
    if path.exists() or not glob.has_magic(given):
        return [path]
    return sorted((Path(match) for match in glob.glob(given, recursive=True)), key=natural_key)


def _images_of(given: str, files: Iterable[Path], videos: list[Path]) -> list[str]:
    """Return what is left of an input without its videos."""
    if not videos:
        return [given]
    if Path(given).is_dir():
        return [given] if any(path.suffix.lower() in READABLE for path in files) else []
    return [str(path) for path in files if path not in videos]


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS and not path.is_dir()
