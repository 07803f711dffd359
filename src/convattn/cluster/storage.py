"""Files on any storage: listed lazily, read through a local copy, written whole or not at all."""

import os
import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import fsspec

from convattn.errors import InputError

__all__ = ["Address"]

_ATOMIC = {"s3", "gs", "gcs", "az", "abfs", "abfss", "adl", "memory"}
"""Protocols whose uploads appear whole or not at all."""


@dataclass(frozen=True)
class Address:
    """A file or folder on any storage that fsspec knows, with some members of a :class:`~pathlib.Path`.

    Attributes:
        text: A path, or an address such as ``s3://bucket/folder``.

    Raises:
        InputError: In every method: the storage is unknown, or refuses.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, other: PurePath) -> "Address":
        return Address(posixpath.join(self.text, other.as_posix()))

    @property
    def place(self) -> PurePath:
        """Its name, as the place of a single file."""
        return PurePath(posixpath.basename(self.text))

    @property
    def parent(self) -> "Address":
        """The folder that it is in."""
        return Address(posixpath.dirname(self.text))

    @property
    def is_local(self) -> bool:
        """Whether it is a path, of this machine or shared."""
        return self._open()[1] == "file"

    def lies_in(self, folder: "Address") -> bool:
        """Return whether this is the folder or something in it."""
        return self.place_in(folder) is not None

    def place_in(self, folder: "Address") -> PurePath | None:
        """Return its place within a folder; None if it lies elsewhere."""
        own, other = (PurePath(address._normalized()) for address in (self, folder))
        return own.relative_to(other) if own.is_relative_to(other) else None

    def _normalized(self) -> str:
        system, protocol, path = self._open()
        return os.path.realpath(path) if protocol == "file" else system.unstrip_protocol(path).rstrip("/")

    def is_dir(self) -> bool:
        """Return whether this is a folder, or a prefix of keys."""
        with self._explained("opened"):
            system, _, path = self._open()
            return self.text.endswith("/") or bool(system.isdir(path))

    def exists(self) -> bool:
        """Return whether there is a file here."""
        with self._explained("opened"):
            system, _, path = self._open()
            return bool(system.exists(path))

    def identity(self) -> list[str]:
        """Return what changes when the file does: its address, size and time or tag of change."""
        with self._explained("read"):
            system, _, path = self._open()
            about = system.info(path)
        return [
            self._normalized(),
            str(about["size"]),
            *(str(about[key]) for key in _CHANGES if key in about),
        ]

    def remove_folder(self) -> None:
        """Remove a folder and what is in it, if it is there."""
        with self._explained("removed"):
            system, _, path = self._open()
            if system.exists(path):
                system.rm(path, recursive=True)

    def files(self) -> Iterator[PurePath]:
        """Yield the places of all files in a folder and its subfolders, relative to it.

        Files come page by page or folder by folder, so that millions of them need little memory. Hidden files
        and folders are left out.
        """
        with self._explained("listed"):
            system, protocol, root = self._open()
            for path in _list_keys(system, root) if protocol == "s3" else _walk(system, root):
                place = PurePath(posixpath.relpath(path, root))
                if not any(part.startswith(".") for part in place.parts):
                    yield place

    @contextmanager
    def local_copy(self) -> Iterator[Path]:
        """Give a local file with the same content; a local file is given as it is."""
        system, protocol, path = self._open()
        if protocol == "file":
            yield Path(path)
            return
        with tempfile.TemporaryDirectory(prefix="convattn-") as folder:
            copy = Path(folder) / posixpath.basename(path)
            with self._explained("read"):
                system.get_file(path, str(copy))
            yield copy

    @contextmanager
    def replacing(self) -> Iterator[Path]:
        """Give a local path to write; once written, the file appears here whole."""
        system, protocol, path = self._open()
        if protocol == "file":
            with self._explained("written"):
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            yield Path(path)  # whoever writes images and videos replaces files atomically
            return
        with tempfile.TemporaryDirectory(prefix="convattn-") as folder:
            local = Path(folder) / posixpath.basename(path)
            yield local
            with self._explained("written"):
                _upload(system, protocol, local, path)

    def _open(self) -> tuple[Any, str, str]:
        """The file system, its protocol, and the path within it."""
        try:
            # Without caches of listings: they would grow with the number of files.
            system, path = fsspec.core.url_to_fs(self.text, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise InputError(f"{self} cannot be opened: {error}.") from error
        protocol = system.protocol if isinstance(system.protocol, str) else system.protocol[0]
        return system, "s3" if "s3" in system.protocol else protocol, path

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn errors of a storage into a sentence; each storage has its own."""
        try:
            yield
        except (InputError, GeneratorExit):
            raise
        except FileNotFoundError as error:
            raise InputError(f"There is no file {self}.") from error
        except Exception as error:
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise InputError(f"{self} cannot be {what}: {reason}; check the address and rights.") from error


_CHANGES = ("mtime", "ETag", "etag", "generation", "LastModified", "last_modified")


def _walk(system: Any, root: str) -> Iterator[str]:
    for folder, subfolders, files in system.walk(root, on_error="raise"):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (posixpath.join(folder, name) for name in sorted(files))


def _list_keys(system: Any, root: str) -> Iterator[str]:
    """Keys a thousand at a time, as S3 hands them out."""
    bucket, _, prefix = root.partition("/")
    query = {"Bucket": bucket, "Prefix": f"{prefix.rstrip('/')}/" if prefix else ""}
    while True:
        page = system.call_s3("list_objects_v2", **query)
        yield from (f"{bucket}/{entry['Key']}" for entry in page.get("Contents", []))
        if not page.get("IsTruncated"):
            return
        query["ContinuationToken"] = page["NextContinuationToken"]


def _upload(system: Any, protocol: str, local: Path, path: str) -> None:
    if protocol in _ATOMIC:
        system.put_file(str(local), path)
        return
    folder, name = posixpath.split(path)
    system.makedirs(folder, exist_ok=True)
    temporary = posixpath.join(folder, f".{name}.{os.getpid()}")
    try:
        system.put_file(str(local), temporary)
        system.mv(temporary, path)
    finally:
        if system.exists(temporary):
            system.rm_file(temporary)
