"""Devices, precisions and free memory."""

from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import psutil
import torch

from convattn.errors import InputError

__all__ = [
    "PRECISIONS",
    "autocast",
    "choose_device",
    "choose_precision",
    "empty_cache",
    "free_memory",
    "is_out_of_memory",
]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_CONTAINER = Path("/sys/fs/cgroup")


def choose_device(name: str = "auto") -> torch.device:
    """Return the device with a name such as "cpu", "cuda:1" or "mps"; "auto" is the accelerator, if any.

    Raises:
        InputError: There is no such device here.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        here = f"cpu or {accelerator.type}" if accelerator else "cpu"
        raise InputError(f"The device {name} is not available here; choose auto, or {here}.") from error
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype for a key of :data:`PRECISIONS`; "auto" is fp16 on CUDA and fp32 elsewhere.

    Raises:
        InputError: There is no such precision.
    """
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in PRECISIONS:
        raise InputError(f"There is no precision {name}; choose auto, {', '.join(PRECISIONS)}.")
    return PRECISIONS[name]


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[object]:
    """Return the context in which networks compute in a precision; some devices have float32 only."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)


def free_memory(device: torch.device) -> int:
    """Return how many bytes could be allocated on a device now."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return int(min(psutil.virtual_memory().available, _container_memory()))


def _container_memory() -> float:
    """Bytes left to a Linux container, whose limit the memory of the machine does not show."""
    with suppress(OSError, ValueError):
        limit, used = (int((_CONTAINER / f"memory.{name}").read_text()) for name in ("max", "current"))
        return max(limit - used, 0)
    return float("inf")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports a lack of memory; every device reports it in another way."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    message = str(error).lower()
    return any(
        phrase in message for phrase in ("out of memory", "can't allocate memory", "not enough memory")
    )


def empty_cache(device: torch.device) -> None:
    """Return the memory that torch caches to the device."""
    if device.type in ("cuda", "mps", "xpu"):
        getattr(torch, device.type).empty_cache()
