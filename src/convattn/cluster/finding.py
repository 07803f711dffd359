"""Which files to upscale and where each result goes, found lazily."""

from collections.abc import Iterator, Sequence
from pathlib import PurePath

from convattn.cluster.storage import Address
from convattn.errors import InputError
from convattn.images.io import READABLE, format_of
from convattn.inference.results import Job, place_results, suffix_of_images
from convattn.inference.video_jobs import CONTAINERS, VIDEOS, suffix_of_video

__all__ = ["find_jobs", "is_video"]


def is_video(place: PurePath) -> bool:
    """Return whether a file is a video by its name."""
    return place.suffix.lower() in VIDEOS


def find_jobs(inputs: Sequence[str], output: str, format: str | None = None) -> Iterator[Job[Address]]:
    """Yield the images and videos that are meant, with the names of their results.

    The names are those of one machine: a single file goes to ``output`` itself if that has a suffix;
    otherwise a result keeps its place within the folder, and a name that is taken gets a number.

    Args:
        inputs: Addresses of files and folders.
        output: Address of the output folder, or of the result of a single file.
        format: As :func:`convattn.inference.results.suffix_of_images` takes it.

    Raises:
        InputError: The format cannot be written, a folder cannot be listed, or a result would lie among the
            inputs.
    """
    suffix_of = suffix_of_images(format)
    sources, target = [Address(given) for given in inputs], Address(output)
    if target.place.suffix and len(sources) == 1 and not (sources[0].is_dir() or target.is_dir()):
        yield _single(sources[0], target, format)
        return
    for source in sources:
        if target.lies_in(source) and source.lies_in(target):
            raise InputError(f"{source} is the input and the output; choose another output.")
    holding = [source for source in sources if source.lies_in(target)]
    for job in place_results(
        _find(sources, target),
        target,
        lambda _, place: (suffix_of_video if is_video(place) else suffix_of)(place),
    ):
        if any(job.target.lies_in(source) for source in holding):
            raise InputError(f"The result {job.target} would lie among the inputs; choose another output.")
        yield job


def _single(source: Address, target: Address, format: str | None) -> Job[Address]:
    if source.lies_in(target):
        raise InputError(f"The result would overwrite the input {source}; choose another output.")
    suffix = target.place.suffix.lower()
    if is_video(source.place) and suffix not in CONTAINERS:
        raise InputError(f"{target} cannot be written: videos end in {', '.join(CONTAINERS)}.")
    if not is_video(source.place):
        format_of(target.place.name)
    if format and suffix != f".{format.lower().removeprefix('.')}":
        raise InputError(f"{target} does not end in .{format}; leave the format out or change the name.")
    return Job(source, target)


def _find(sources: Sequence[Address], target: Address) -> Iterator[tuple[Address, PurePath]]:
    """Each file, and its place within the folder it was found in; earlier results are left out."""
    for source in sources:
        if not source.is_dir():
            yield source, source.place
            continue
        results = target.place_in(source)
        for place in source.files():
            earlier = results is not None and results in place.parents
            if place.suffix.lower() in (*READABLE, *VIDEOS) and not earlier:
                yield source / place, place
