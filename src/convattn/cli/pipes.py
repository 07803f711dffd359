"""Standard input and output in place of files, by the name ``-``."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["with_pipes"]

_PIPE = "-"
_MATROSKA = b"\x1aE\xdf\xa3"
_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WebP": ".webp", "TIFF": ".tif", "AVIF": ".avif", "GIF": ".gif"}


@contextmanager
def with_pipes(
    inputs: list[str], output: str | None, format: str | None
) -> Iterator[tuple[list[str], str | None]]:
    """Yield inputs and output with a temporary file for each that is ``-``.

    Standard input is copied to its file at once; the output file is copied to standard output at the end.
    Without an output, what comes from standard input goes to standard output.

    Raises:
        InputError: There is more than one input for one standard output, or a video.
    """
    if output is None and inputs == [_PIPE]:
        output = _PIPE
    if _PIPE not in (*inputs, output):
        yield inputs, output
        return
    from convattn.errors import InputError

    if output == _PIPE and len(inputs) > 1:
        raise InputError("Standard output takes one image; give one input, or a folder as output.")
    with tempfile.TemporaryDirectory() as folder:
        inputs = [_received(Path(folder)) if given == _PIPE else given for given in inputs]
        if output != _PIPE:
            yield inputs, output
            return
        if _is_video(Path(inputs[0])):
            raise InputError("A video cannot go to standard output; name a file, such as -o big.mp4.")
        result = Path(folder, "output" + _suffix(inputs[0], format))
        yield inputs, str(result)
        with result.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)


def _received(folder: Path) -> str:
    """Copy standard input to a file with the suffix of its format."""
    from convattn.images.io import sniff

    path = folder / "stdin"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return str(path.rename(path.with_suffix(_SUFFIXES.get(sniff(path) or "", ""))))


def _is_video(path: Path) -> bool:
    """Return whether a file begins as MP4, MOV, Matroska, WebM or AVI do."""
    from convattn.images.io import sniff

    if not path.is_file():  # whoever reads it says so
        return False
    with path.open("rb") as file:
        head = file.read(12)
    is_riff = head.startswith(b"RIFF") and head.endswith(b"AVI ")
    return is_riff or head.startswith(_MATROSKA) or (head[4:8] == b"ftyp" and sniff(path) is None)


def _suffix(source: str, format: str | None) -> str:
    from convattn.images.io import WRITABLE
    from convattn.inference.animations import ANIMATIONS

    own = Path(source).suffix.lower()
    known = own in WRITABLE or own in ANIMATIONS
    return "." + format.lower().removeprefix(".") if format else own if known else ".png"
