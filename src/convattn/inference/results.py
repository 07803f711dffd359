"""Where results go: their names, and what happens where one exists already."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import PurePath
from typing import Generic, Protocol, TypeVar

from convattn.choices import Existing
from convattn.errors import InputError
from convattn.images.io import WRITABLE
from convattn.images.io.formats import check_encoder

__all__ = ["Job", "Place", "check_existing", "is_wanted", "place_results", "suffix_of_images"]

P = TypeVar("P", bound="Place")


class Place(Protocol):
    """A file or folder: a path of this machine, or an address on some storage that behaves like one."""

    def __truediv__(self: P, other: PurePath, /) -> P:
        """Return the place of a file in this folder."""

    def exists(self) -> bool:
        """Return whether there is something here."""


@dataclass(frozen=True)
class Job(Generic[P]):
    """One file to upscale.

    Attributes:
        source: The file to read.
        target: The file to write.
    """

    source: P
    target: P


def place_results(
    sources: Iterable[tuple[P, PurePath]], folder: P, suffix_of: Callable[[P, PurePath], str]
) -> Iterator[Job[P]]:
    """Name a result in a folder for each source as it comes; names that are taken get a number.

    Args:
        sources: Each source, and its place in the folder that it was found in.
        folder: Where the results go.
        suffix_of: The suffix of the result for a source and its place.
    """
    taken: set[bytes] = set()
    for source, place in sources:
        name = first = place.with_suffix(suffix_of(source, place))
        number = 2
        while _digest(name) in taken:
            name = first.with_stem(f"{first.stem}-{number}")
            number += 1
        taken.add(_digest(name))
        yield Job(source, folder / name)


def _digest(name: PurePath) -> bytes:
    """Return eight bytes in place of a name, since millions of names would fill memory."""
    # Many file systems do not tell A.png from a.png.
    return blake2b(str(name).casefold().encode("utf-8", "surrogateescape"), digest_size=8).digest()


def suffix_of_images(format: str | None) -> Callable[[PurePath], str]:
    """Return the suffix of a result for the place of its source: that of a format, or the source's own.

    Args:
        format: Suffix of the results, with or without the dot; None for that of each source, or png where
            that format cannot be written.

    Raises:
        InputError: The format cannot be written, or not without a plugin.
    """
    if format is None:
        return lambda place: place.suffix if place.suffix.lower() in WRITABLE else ".png"
    suffix = "." + format.lower().removeprefix(".")
    if suffix not in WRITABLE:
        choices = ", ".join(known.removeprefix(".") for known in WRITABLE)
        raise InputError(f"The format {format} cannot be written; choose {choices}.")
    check_encoder(WRITABLE[suffix])
    return lambda place: suffix


def check_existing(existing: str) -> None:
    """Raise an InputError if it is none of :class:`~convattn.choices.Existing`."""
    words = [choice.value for choice in Existing]
    if existing not in words:
        raise InputError(f"{existing!r} is no choice for existing results; choose {', '.join(words)}.")


def is_wanted(target: Place, existing: str) -> bool:
    """Return whether to make a result that may exist already.

    Raises:
        InputError: It exists, and that is to be refused.
    """
    if existing == "overwrite" or not target.exists():
        return True
    if existing == "refuse":
        raise InputError(f"{target} exists already; choose --existing skip or --existing overwrite.")
    return False
