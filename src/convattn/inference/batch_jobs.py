"""Many image files at once: which are meant, and where each result goes."""

import glob
import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePath

from convattn.choices import Existing
from convattn.errors import InputError
from convattn.files import natural_key, remove_litter
from convattn.images.io import WRITABLE, Image, check_size, find_images, format_of, read_image, write_image
from convattn.inference.animations import becomes_animation, needs_animation
from convattn.inference.results import Job, check_existing, is_wanted, place_results, suffix_of_images
from convattn.inference.upscaler import Upscaler
from convattn.progress import Progress, ignore, share

__all__ = ["plan", "upscale_files", "without_earlier_results"]

_WRITERS = min(4, max(1, (os.cpu_count() or 1) // 2))  # threads that encode results


def plan(inputs: Sequence[str], output: str | os.PathLike[str], format: str | None = None) -> list[Job[Path]]:
    """Find the images that are meant and name their results.

    A single file goes to ``output`` itself if that has a suffix. Otherwise ``output`` is a folder: the
    results have the names of their sources, what lies in a folder keeps its place within it, and where two
    results would have one name the later one gets a number (``a.png``, ``a-2.png``).

    Args:
        inputs: Files, folders (with the folders within them) and glob patterns.
        output: A file or a folder.
        format: Suffix of the results, with or without the dot; by default that of each source, or png where
            that format cannot be written.

    Returns:
        Images, and animations by :func:`~convattn.inference.animations.becomes_animation`.

    Raises:
        InputError: Nothing is found, a result would overwrite a source, or such an output cannot be written.
    """
    names_a_folder = os.fspath(output).endswith(("/", os.sep))
    output = Path(output)
    sources = _find(inputs, output)
    suffix_of = suffix_of_images(format)
    if not names_a_folder and _names_a_file(output, inputs):
        if format and (wanted := suffix_of(output)) != output.suffix.lower():
            raise InputError(f"{output} does not end in {wanted}; leave the format out or change the name.")
        if not becomes_animation(sources[0][0], output):
            format_of(output)
        jobs = [Job(sources[0][0], output)]
    else:

        def suffix(source: Path, place: PurePath) -> str:
            return place.suffix if format is None and needs_animation(source) else suffix_of(place)

        jobs = list(place_results(sources, output, suffix))
    _keep_sources(jobs)
    return jobs


def upscale_files(
    upscaler: Upscaler,
    jobs: Sequence[Job[Path]],
    *,
    quality: int = 95,
    existing: str = Existing.refuse,
    progress: Progress = ignore,
) -> list[InputError]:
    """Upscale image files, continuing with the next if one cannot be upscaled.

    Args:
        upscaler: What upscales them.
        jobs: What to read and what to write.
        quality: 1 to 100, as in :func:`~convattn.images.io.write_image`.
        existing: One of :class:`~convattn.choices.Existing`: a result that exists already counts as failed,
            is passed over, or is replaced.
        progress: Called now and then with the fraction that is done, up to 1.

    Returns:
        What went wrong, at most one error an image.

    Raises:
        InputError: ``existing`` is unknown, or a folder cannot be made or written.
    """
    check_existing(existing)
    for folder in {job.target.parent for job in jobs}:
        _make_folder(folder)
        remove_litter(folder)

    def read(job: Job[Path]) -> Image | None:
        if not is_wanted(job.target, existing):
            return None
        image = read_image(job.source)
        height, width = image.pixels.shape[:2]
        check_size(job.target, *upscaler.size_of(height, width))
        return image

    def write(image: Image, job: Job[Path]) -> None:
        with _blaming(job):
            write_image(image, job.target, quality=quality)

    errors: dict[int, InputError] = {}
    writes: dict[int, Future[None]] = {}

    def finish(number: int) -> None:
        try:
            writes.pop(number).result()
        except InputError as error:
            errors[number] = error

    # While an image is upscaled, the next is read and results before it are encoded.
    with ThreadPoolExecutor(1 + _WRITERS) as threads:
        reads = deque(threads.submit(read, job) for job in jobs[:1])
        for number, job in enumerate(jobs):
            reads.extend(threads.submit(read, following) for following in jobs[number + 1 : number + 2])
            if len(writes) == _WRITERS:  # results that wait take memory
                finish(next(iter(writes)))
            try:
                with _blaming(job):
                    image = reads.popleft().result()
                    result = image and upscaler(image, progress=share(progress, number, len(jobs)))
                if result:
                    writes[number] = threads.submit(write, result, job)
            except InputError as error:
                errors[number] = error
            progress((number + 1) / len(jobs))
        for number in list(writes):
            finish(number)
    return [errors[number] for number in sorted(errors)]


@contextmanager
def _blaming(job: Job[Path]) -> Iterator[None]:
    """Turn an OSError, as from a name that is too long even to ask for, into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{job.source} cannot be upscaled to {job.target}: {error.strerror}.") from error


def _find(inputs: Sequence[str], output: Path) -> list[tuple[Path, Path]]:
    """Each image once, with its place relative to the folder it was found in."""
    found: dict[Path, Path] = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            inside = without_earlier_results(find_images(path), path, output)
            found.update((file, file.relative_to(path)) for file in inside)
        elif path.exists() or not glob.has_magic(given):
            found[path] = Path(path.name)
        else:
            matches = sorted((Path(match) for match in glob.glob(given, recursive=True)), key=natural_key)
            files = without_earlier_results(filter(Path.is_file, matches), _fixed_part(given), output)
            if not files:
                raise InputError(f"No file matches {given}.")
            found.update((file, Path(file.name)) for file in files)
    if not found:
        raise InputError(f"There is no image in {', '.join(inputs)} outside of the output folder {output}.")
    return list(found.items())


def without_earlier_results(files: Iterable[Path], searched: Path, output: Path) -> list[Path]:
    """Leave out what lies in the output folder, unless the folder that was searched lies in it."""
    folder, searched = output.resolve(), searched.resolve()
    if folder == searched or folder in searched.parents:
        return list(files)
    return [file for file in files if folder not in file.resolve().parents]


def _fixed_part(pattern: str) -> Path:
    """Return the folder of a glob pattern in which its search begins."""
    parts = Path(pattern).parts
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), parts))


def _names_a_file(output: Path, inputs: Sequence[str]) -> bool:
    """Whether the output is one file, not a folder."""
    if output.is_dir():
        return False
    first = Path(inputs[0])
    if len(inputs) == 1 and not first.is_dir() and (first.exists() or not glob.has_magic(inputs[0])):
        return bool(output.suffix)
    if output.suffix.lower() in WRITABLE:
        raise InputError(f"Several images cannot all become {output}; give a folder instead.")
    return False


def _keep_sources(jobs: list[Job[Path]]) -> None:
    """No result may take the place of any source, by whatever name."""
    sources = {_identity(job.source) for job in jobs if job.source.exists()}
    for job in jobs:
        if job.target.exists() and _identity(job.target) in sources:
            raise InputError(f"The result would overwrite the input {job.target}; choose another output.")


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The output folder {folder} cannot be made: {error.strerror}.") from error
    if not os.access(folder, os.W_OK):
        raise InputError(
            f"The output folder {folder} cannot be written; choose another or change its rights."
        )
