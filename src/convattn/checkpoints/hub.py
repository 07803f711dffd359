"""Downloading files into the user's cache directory: resumable, verified, safe with several processes.

Environment variables:
    CONVATTN_CACHE: The cache directory; by default the platform's.
    CONVATTN_MIRROR: An address that replaces ``https://github.com`` in every download.
    HTTPS_PROXY, HTTP_PROXY, NO_PROXY: Proxies, as everywhere.
"""

import hashlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener

import platformdirs
from filelock import FileLock, Timeout

from convattn.errors import InputError
from convattn.files import replacing
from convattn.progress import Progress, Steps, ignore

__all__ = ["cache_dir", "cached", "fetch"]

_ATTEMPTS = 4
"""How often a download may fail in a row without receiving anything."""

_TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as lost."""

_PAUSE = 0.5
"""Seconds before the second attempt; doubles with each further one."""

_CHUNK = 2**18
_GITHUB = "https://github.com"


def cache_dir() -> Path:
    """Return the directory that holds downloaded models; it may not exist yet."""
    if folder := os.environ.get("CONVATTN_CACHE"):
        return Path(folder).expanduser()
    return platformdirs.user_cache_path("convattn", appauthor=False)


def cached(url: str) -> Path:
    """Return where the file of a URL is kept, whether or not it is there."""
    return cache_dir() / "models" / PurePosixPath(urlsplit(url).path).name


def fetch(
    url: str, *, sha256: str | None = None, check: Callable[[Path], object] = lambda path: None
) -> Path:
    """Return the local file of a URL, downloading it at its first use.

    An interrupted download resumes where it stopped. Several processes may ask for the same file at once: one
    downloads, the others wait.

    Args:
        url: What to download. Its last part is the file's name in the cache.
        sha256: The file's hash, if known. Otherwise the hash is remembered at the first download and required
            from then on.
        check: Called with a new file whose hash was not known, downloaded or copied into the cache; raises an
            InputError if the file is unusable.

    Returns:
        The file, whose hash is right.

    Raises:
        InputError: The file cannot be downloaded or written, or it is not the expected one.
    """
    path = cached(url)
    if _is_intact(path, sha256):  # needs no lock and no permission to write
        return path
    with _lock(path):
        if not (_is_intact(path, sha256) or _is_adopted(path, sha256, check)):
            _download_verified(url, path, sha256, check)
    return path


def _is_intact(path: Path, sha256: str | None) -> bool:
    expected = sha256 or _remembered(path)
    return path.is_file() and expected is not None and _digest(path) == expected


def _is_adopted(path: Path, sha256: str | None, check: Callable[[Path], object]) -> bool:
    """Return whether a file that the user copied here is usable; its hash is remembered then."""
    if sha256 or _remembered(path) or not path.is_file():
        return False
    with suppress(InputError):
        check(path)
        _remember(path, _digest(path))
        return True
    return False


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _memory(path: Path) -> Path:
    """Return the file beside a download that remembers its hash, in the format of sha256sum."""
    return path.with_name(f"{path.name}.sha256")


def _remember(path: Path, digest: str) -> None:
    with replacing(_memory(path)) as temporary:
        temporary.write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    warnings.warn(
        f"No SHA-256 of {path.name} is published. The file loads; its hash {digest} is remembered and "
        "required from now on.",
        stacklevel=2,
    )


def _remembered(path: Path) -> str | None:
    file = _memory(path)
    return file.read_text(encoding="utf-8").split()[0] if file.is_file() else None


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the right to write a file, alone among all processes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f"{path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _say(f"Another process is downloading {path.name}; waiting for it.")
            lock.acquire()
    except OSError as error:
        raise _not_writable(path, error) from error
    try:
        yield
    finally:
        lock.release()


def _download_verified(url: str, path: Path, sha256: str | None, check: Callable[[Path], object]) -> None:
    expected = sha256 or _remembered(path)
    part = path.with_name(f"partial-{path.name}")
    resumed = part.is_file()
    _download(_mirrored(url), part)
    digest = _digest(part)
    if resumed and expected not in (None, digest):  # the first half may be that of another file
        part.unlink()
        _download(_mirrored(url), part)
        digest = _digest(part)
    if expected is None:
        _accept_first(part, check, url)
        _remember(path, digest)
    elif digest != expected:
        part.unlink()
        raise InputError(_wrong_hash(path, url, digest, expected, known=sha256 is not None))
    os.replace(part, path)


def _accept_first(part: Path, check: Callable[[Path], object], url: str) -> None:
    try:
        check(part)
    except InputError as error:
        part.unlink()
        raise InputError(
            f"{_mirrored(url)} is not a model: {error} A proxy or mirror may have answered in its place."
        ) from error


def _wrong_hash(path: Path, url: str, digest: str, expected: str, *, known: bool) -> str:
    advice = (
        "a proxy or mirror may have changed it; try again without it"
        if known
        else f"the publisher may have replaced it; delete {_memory(path)} if you trust the new file"
    )
    return f"{_mirrored(url)} has the SHA-256 {digest}, not {expected}: {advice}."


def _mirrored(url: str) -> str:
    mirror = os.environ.get("CONVATTN_MIRROR", _GITHUB).rstrip("/")
    return mirror + url.removeprefix(_GITHUB) if url.startswith(_GITHUB) else url


def _download(url: str, part: Path) -> None:
    """Append to a partial file until it is complete, reconnecting as long as bytes arrive."""
    failures = 0
    with _bar(url) as progress:
        while True:
            before = part.stat().st_size if part.is_file() else 0
            try:
                _receive(url, part, before, progress)
                return
            except HTTPError as error:
                if error.code == 416:  # the partial file is larger than the file
                    part.unlink(missing_ok=True)
                elif error.code < 500 and error.code not in (408, 429):
                    raise _unavailable(url, f"the server answers {error.code} ({error.reason})") from error
                reason: Exception = error
            except (OSError, HTTPException) as error:  # a lost or refused connection
                reason = error
            grown = part.is_file() and part.stat().st_size > before
            failures = 1 if grown else failures + 1
            if failures >= _ATTEMPTS:
                raise _unavailable(url, _reason(reason)) from reason
            time.sleep(_PAUSE * 2 ** (failures - 1))


def _receive(url: str, part: Path, start: int, progress: Progress) -> None:
    """Receive a file, or what is missing of it, in one connection."""
    from convattn import __version__

    headers = {"User-Agent": f"convattn/{__version__}"} | ({"Range": f"bytes={start}-"} if start else {})
    opener = build_opener()  # reads the proxies from the environment
    with opener.open(Request(url, headers=headers), timeout=_TIMEOUT) as response:
        if response.status != 206:  # the server sends the file from its beginning
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        done = start
        for chunk in _chunks(response):
            _append(part, chunk, new=done == 0)
            done += len(chunk)
            if total:
                progress(Steps(done, total))
    if total is not None and done < total:
        raise ConnectionError(f"the connection ended after {done} of {total} bytes")


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    while chunk := response.read1(_CHUNK):
        yield chunk


def _append(part: Path, chunk: bytes, *, new: bool) -> None:
    try:
        with part.open("wb" if new else "ab", buffering=0) as file:
            file.write(chunk)
    except OSError as error:
        part.unlink(missing_ok=True)  # a full disk needs the room
        raise _not_writable(part, error) from error


def _not_writable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path} cannot be written: {error.strerror or error}; free some space or set CONVATTN_CACHE to "
        "another folder."
    )


def _unavailable(url: str, reason: str) -> InputError:
    return InputError(
        f"{url} cannot be downloaded: {reason}. Without a connection, run `convattn models download` "
        f"elsewhere and copy the files to {cache_dir() / 'models'}; CONVATTN_MIRROR sets a mirror."
    )


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return str(text).partition("\n")[0].rstrip(".")


def _say(message: str) -> None:
    print(message, file=sys.stderr)


@contextmanager
def _bar(url: str) -> Iterator[Progress]:
    """Show a download on the terminal: as a bar, or as one line where stderr is not a terminal."""
    parts = urlsplit(url)
    title = f"Downloading {PurePosixPath(parts.path).name} from {parts.hostname}"
    if not sys.stderr.isatty():
        _say(title)
        yield ignore
        return
    from rich.console import Console

    from convattn.progress.bar import progress_bar

    with progress_bar(Console(stderr=True), title, "bytes") as progress:
        yield progress
