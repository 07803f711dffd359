"""Peak memory of a forward pass.

On a CPU it is measured in a fresh process: ``python -m convattn.bench.memory`` reads a pickled candidate and
setting, and prints by how many bytes the process grew, or why it failed.
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
    from convattn.bench.spec import Candidate, Setting

__all__ = ["peak"]

_SMALL = 2, 32  # images of the warm-up input, and pixels a side


def peak(candidate: "Candidate", setting: "Setting") -> int | None:
    """Return the peak in bytes without weights and input, or None on devices that do not report it.

    Raises:
        RuntimeError: The candidate cannot be run; the message says why.
    """
    if setting.device == "cpu":
        return _in_own_process(candidate, setting)
    if not setting.device.startswith("cuda"):
        return None
    forward = candidate.prepare(setting)
    forward()
    torch.cuda.reset_peak_memory_stats(setting.device)
    before = torch.cuda.memory_allocated(setting.device)
    forward()
    return torch.cuda.max_memory_allocated(setting.device) - before


def _in_own_process(candidate: "Candidate", setting: "Setting") -> int:
    command = [sys.executable, "-m", __name__]
    child = subprocess.run(
        command, input=pickle.dumps((candidate, setting)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    if child.returncode:
        raise RuntimeError("The process was killed, as happens if memory runs out")
    grown, failure = json.loads(child.stdout.splitlines()[-1])
    if failure:
        raise RuntimeError(failure)
    return grown


def _growth(candidate: "Candidate", setting: "Setting") -> int:
    """Return how many bytes this process takes for a forward pass."""
    images, side = _SMALL
    batch, channels, *sides = candidate.shape
    small = (min(batch, images), channels, *(min(length, side) for length in sides))
    replace(candidate, shape=small).prepare(setting)()  # loads code and libraries, which stay
    forward = candidate.prepare(setting)
    if candidate.variant.compiles:  # which takes memory of its own
        forward()
    _forget_peak()
    before = psutil.Process().memory_info().rss
    forward()
    return _peak_so_far() - before


def _forget_peak() -> None:
    """Reset the peak to the current memory, if the system can."""
    import ctypes

    gc.collect()
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def _peak_so_far() -> int:
    """Return the peak memory of this process in bytes."""
    with suppress(OSError):  # on Linux, getrusage includes the parent process
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def _main() -> None:
    grown, failure = None, None
    try:
        candidate, setting = pickle.load(sys.stdin.buffer)
        with setting.limited_threads():
            grown = _growth(candidate, setting)
    except Exception as error:
        failure = str(error) or type(error).__name__
    print(json.dumps((grown, failure)))


if __name__ == "__main__":
    _main()
