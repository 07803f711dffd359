"""Timestamps of frames in a text file, as mkvmerge and ffms2 read and write them (format v2)."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from convattn.errors import InputError
from convattn.files import replacing

__all__ = ["FILE_NAME", "read_timestamps", "write_timestamps"]

FILE_NAME = "timestamps.txt"
"""The file in a folder of frames that says when each is shown."""

_HEADER = "# timestamp format v2"


def write_timestamps(folder: Path, times: Sequence[Fraction]) -> None:
    """Write when each frame is shown and, last, when the last one ends.

    Args:
        folder: Where the frames are.
        times: In seconds, one more than there are frames.
    """
    with replacing(folder / FILE_NAME) as temporary:
        lines = [_HEADER, *(f"{float(time * 1000):.6f}".rstrip("0").rstrip(".") for time in times)]
        temporary.write_text("\n".join(lines) + "\n")


def read_timestamps(folder: Path, count: int) -> list[Fraction] | None:
    """Return when each frame is shown and, last, when the last one ends, in seconds; None without a file.

    Args:
        folder: Where the frames are.
        count: How many frames there are.

    Raises:
        InputError: The file is not in this format, does not ascend, or has another number of frames.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
        times = [Fraction(line.strip()) / 1000 for line in lines]
    except (ValueError, ZeroDivisionError, OSError) as error:
        raise InputError(f"{path} is no list of milliseconds, one per frame; remove or repair it.") from error
    if len(times) == count and count > 1:
        times.append(2 * times[-1] - times[-2])
    if len(times) != count + 1 or any(b <= a for a, b in pairwise(times)):
        raise InputError(f"{path} must have one time for each of {count} frames, in ascending order.")
    return times
