"""A ZIP archive that is sent while it is made: it is never on the disk, nor in memory as a whole."""

import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

__all__ = ["stream_zip"]

_CHUNK = 2**18


class _Outbox(io.RawIOBase):
    """Collects what is written until it is fetched; cannot be rewound, as a connection cannot."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._parts.append(bytes(data))
        return len(data)

    def fetch(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def stream_zip(files: Iterable[tuple[str, Path]]) -> Iterator[bytes]:
    """Give the bytes of a ZIP archive of files.

    Images are compressed already, so they are stored as they are. A file that is gone is left out.

    Args:
        files: Names in the archive, and where they are. Equal names are numbered.
    """
    outbox, names = _Outbox(), set[str]()
    with zipfile.ZipFile(outbox, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files:
            if not path.is_file():
                continue
            entry = zipfile.ZipInfo.from_file(path, _unused(name, names))
            with path.open("rb") as source, archive.open(entry, "w") as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
                    yield outbox.fetch()
    yield outbox.fetch()


def _unused(name: str, names: set[str]) -> str:
    """A name that no other entry has; many file systems do not tell A.png from a.png."""
    path, number, unused = PurePosixPath(name), 2, name
    while unused.casefold() in names:
        unused = str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
        number += 1
    names.add(unused.casefold())
    return unused
