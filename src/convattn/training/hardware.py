"""Choose the settings that a recipe leaves to ``auto`` by what the processor has."""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["batch_size", "cpu_has_bfloat16", "device_type", "num_threads", "precision"]

_CPU_BATCH_SIZE, _GPU_BATCH_SIZE = 8, 64


def device_type(accelerator: str) -> str:
    """Return the type of device that Lightning uses: ``cuda``, ``mps`` or ``cpu``.

    Args:
        accelerator: One of these, or ``auto``.
    """
    if accelerator != "auto":
        return accelerator
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def batch_size(accelerator: str) -> int:
    """Return a batch size that keeps a CPU's steps short, or a GPU busy."""
    return _CPU_BATCH_SIZE if device_type(accelerator) == "cpu" else _GPU_BATCH_SIZE


def num_threads() -> int:
    """Return the number of threads that torch uses, at most one per core available to this process."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(torch.get_num_threads(), available)


def cpu_has_bfloat16() -> bool:
    """Return whether the CPU has instructions that multiply in bfloat16."""
    if platform.machine().lower() in {"arm64", "aarch64"}:
        info = Path("/proc/cpuinfo")
        return info.is_file() and " bf16" in info.read_text()
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)


def precision(accelerator: str, step: Callable[[], Tensor]) -> tuple[str, str]:
    """Choose Lightning's precision, and say why.

    Args:
        accelerator: The recipe's accelerator.
        step: Computes the result of a training step, of which the gradient is taken; called for a trial on
            CPUs with bfloat16 instructions only.

    Returns:
        The precision, and the reason in words.
    """
    device = device_type(accelerator)
    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16-mixed", "the GPU computes in bfloat16"
        return "16-mixed", "the GPU computes in float16, but not in bfloat16"
    if device == "mps" or not cpu_has_bfloat16():
        return "32-true", "the processor has no bfloat16 instructions"
    single, half = _seconds(step, bfloat16=False), _seconds(step, bfloat16=True)
    reason = f"in a trial a step took {half:.2f} s in bfloat16 and {single:.2f} s in float32"
    return ("bf16-mixed" if half < single else "32-true"), reason


def _seconds(step: Callable[[], Tensor], *, bfloat16: bool) -> float:
    """Return the time of the faster of two steps."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            result = step()
        result.float().mean().backward()
        times.append(time.perf_counter() - start)
    return min(times)
