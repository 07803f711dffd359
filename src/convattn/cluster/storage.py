"""Files on any storage: listed lazily, read through a local copy, written whole or not at all."""

import os
import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec

from convattn.errors import InputError

__all__ = ["exists", "is_folder", "join", "list_files", "local_copy", "replacing_anywhere"]

_ATOMIC = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "memory"}
"""Protocols whose uploads appear whole or not at all."""


def _open_storage(address: str) -> tuple[Any, str, str]:
    """The file system of an address, its protocol, and the path within it.

    Raises:
        InputError: The protocol is unknown, or its package is missing.
    """
    try:
        # Without caches of listings: they would grow with the number of files.
        system, path = fsspec.core.url_to_fs(address, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise InputError(f"{address} cannot be opened: {error}.") from error
    protocol = system.protocol if isinstance(system.protocol, str) else system.protocol[0]
    return system, "s3" if "s3" in system.protocol else protocol, path


def join(folder: str, place: str) -> str:
    """Return the address of a place in a folder."""
    return posixpath.join(folder, place)


def is_folder(address: str) -> bool:
    """Return whether an address is a folder, or a prefix of keys."""
    system, _, path = _open_storage(address)
    return address.endswith("/") or bool(system.isdir(path))


def exists(address: str) -> bool:
    """Return whether there is a file at an address."""
    system, _, path = _open_storage(address)
    return bool(system.exists(path))


def list_files(folder: str) -> Iterator[str]:
    """Yield the places of all files in a folder and its subfolders, relative to it.

    Files come page by page or folder by folder, so that millions of them need little memory. Hidden files and
    folders are left out.

    Raises:
        InputError: The storage cannot be opened or read.
    """
    system, protocol, root = _open_storage(folder)
    try:
        paths = _list_keys(system, root) if protocol == "s3" else _walk(system, root)
        for path in paths:
            place = posixpath.relpath(path, root)
            if not any(part.startswith(".") for part in place.split("/")):
                yield place
    except OSError as error:
        raise InputError(f"{folder} cannot be listed: {error}.") from error


def _walk(system: Any, root: str) -> Iterator[str]:
    for folder, subfolders, files in system.walk(root):
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


@contextmanager
def local_copy(address: str) -> Iterator[Path]:
    """Give a local file with the content of an address; a local file is given as it is.

    Raises:
        InputError: The file is missing or cannot be read.
    """
    system, protocol, path = _open_storage(address)
    if protocol == "file":
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="convattn-") as folder:
        copy = Path(folder) / posixpath.basename(path)
        try:
            system.get_file(path, str(copy))
        except FileNotFoundError as error:
            raise InputError(f"There is no file {address}.") from error
        except OSError as error:
            raise InputError(f"{address} cannot be read: {error}.") from error
        yield copy


@contextmanager
def replacing_anywhere(address: str) -> Iterator[Path]:
    """Give a local path to write; once written, the file appears at the address whole.

    Raises:
        InputError: The address cannot be written.
    """
    system, protocol, path = _open_storage(address)
    if protocol == "file":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        yield Path(path)  # whoever writes images replaces files atomically
        return
    with tempfile.TemporaryDirectory(prefix="convattn-") as folder:
        local = Path(folder) / posixpath.basename(path)
        yield local
        try:
            _upload(system, protocol, local, path)
        except OSError as error:
            raise InputError(f"{address} cannot be written: {error}.") from error


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
