"""The peak of memory that a forward pass takes.

On a CPU only a fresh process can tell: ``python -m convattn.bench.memory`` reads a pickled side and its
setting, and prints how many bytes the process grew by, or why it failed.
"""

import gc
import json
import pickle
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

if TYPE_CHECKING:
    from convattn.bench.runner import Setting, Side

__all__ = ["peak"]

_SMALL = 64  # pixels a side of what is computed first


def peak(side: "Side", setting: "Setting") -> int | None:
    """Bytes beside weights and input, or None on devices that do not tell.

    Raises:
        RuntimeError: The side cannot be run; the message says why.
    """
    if setting.device == "cpu":
        return _in_own_process(side, setting)
    if not setting.device.startswith("cuda"):
        return None
    forward = side.prepare(setting)
    forward()
    torch.cuda.reset_peak_memory_stats(setting.device)
    before = torch.cuda.memory_allocated(setting.device)
    forward()
    return torch.cuda.max_memory_allocated(setting.device) - before


def _in_own_process(side: "Side", setting: "Setting") -> int:
    command = [sys.executable, "-m", __name__]
    child = subprocess.run(
        command, input=pickle.dumps((side, setting)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    if child.returncode:
        raise RuntimeError("Its process was ended, as happens where memory runs out")
    grown, failure = json.loads(child.stdout.splitlines()[-1])
    if failure:
        raise RuntimeError(failure)
    return grown


def _growth(side: "Side", setting: "Setting") -> int:
    """How many bytes this process takes for a forward pass, at most."""
    small = (*side.shape[:2], *(min(length, _SMALL) for length in side.shape[2:]))
    replace(side, shape=small).prepare(setting)()  # loads code and libraries, which stay
    forward = side.prepare(setting)
    if side.form.compiles:  # which takes memory of its own
        forward()
    _forget_peak()
    before = psutil.Process().memory_info().rss
    forward()
    return _peak_so_far() - before


def _forget_peak() -> None:
    """Start a new peak from what the process takes now, where the system can."""
    import ctypes

    gc.collect()
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def _peak_so_far() -> int:
    """The most bytes of memory that this process has held."""
    with suppress(OSError):  # on Linux getrusage also knows of the process that started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def _main() -> None:
    grown, failure = None, None
    try:
        grown = _growth(*pickle.load(sys.stdin.buffer))
    except Exception as error:
        failure = str(error) or type(error).__name__
    print(json.dumps((grown, failure)))


if __name__ == "__main__":
    _main()
