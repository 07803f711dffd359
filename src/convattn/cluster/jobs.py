"""Which images to upscale and where each result goes, found lazily."""

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple

from convattn.cluster.storage import is_folder, join, list_files
from convattn.images.io import READABLE, WRITABLE
from convattn.inference.batch_jobs import result_suffix

__all__ = ["RemoteJob", "find_jobs"]


class RemoteJob(NamedTuple):
    """One image to upscale.

    Attributes:
        source: Address to read.
        target: Address to write.
    """

    source: str
    target: str


def find_jobs(inputs: Sequence[str], output: str, format: str | None = None) -> Iterator[RemoteJob]:
    """Yield the images that are meant, with the names of their results.

    The names are those of :func:`convattn.inference.batch_jobs.plan`: a result keeps its place within the
    folder, and a name that is taken gets a number.

    Args:
        inputs: Addresses of images and folders.
        output: Address of the output folder.
        format: Suffix of the results, with or without the dot; by default that of each source, or png where
            that format cannot be written.

    Raises:
        InputError: The format cannot be written, or a folder cannot be listed.
    """
    suffix = result_suffix(format)
    taken: set[bytes] = set()
    for source, place in _find(inputs, output):
        yield RemoteJob(source, join(output, _name(place, suffix, taken)))


def _find(inputs: Iterable[str], output: str) -> Iterator[tuple[str, str]]:
    """The address of each image, and its place within the folder it was found in."""
    for address in inputs:
        if not is_folder(address):
            yield address, posixpath.basename(address)
            continue
        inside = _inside(output, address)
        for place in list_files(address):
            results = inside is not None and place.startswith(inside)
            if posixpath.splitext(place)[1].lower() in READABLE and not results:
                yield join(address, place), place


def _inside(output: str, folder: str) -> str | None:
    """The place of the output folder within a folder, if it lies there."""
    output, folder = f"{output.rstrip('/')}/", f"{folder.rstrip('/')}/"
    return output.removeprefix(folder) if output.startswith(folder) and output != folder else None


def _name(place: str, suffix: str | None, taken: set[bytes]) -> str:
    stem, own = posixpath.splitext(place)
    ending = suffix or (own if own.lower() in WRITABLE else ".png")
    name, number = f"{stem}{ending}", 2
    while _digest(name) in taken:
        name = f"{stem}-{number}{ending}"
        number += 1
    taken.add(_digest(name))
    return name


def _digest(name: str) -> bytes:
    """Eight bytes in place of a name, since millions of names would fill memory."""
    return blake2b(name.casefold().encode(), digest_size=8).digest()
