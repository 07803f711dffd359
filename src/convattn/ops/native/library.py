"""The compiled kernels: the shared library beside this file, and what it is asked to compute."""

import ctypes
import warnings
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["ConvAttention", "FeedForward", "Map", "Pointwise", "WindowAttention", "library", "run"]


class Map(ctypes.Structure):
    """A feature map (N, C, H, W) of any memory format."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("strides", ctypes.c_int64 * 4),
    )

    @classmethod
    def of(cls, x: Tensor) -> "Map":
        """The map that a tensor holds; the tensor must outlive it."""
        return cls(x.data_ptr(), x.stride())


class ConvAttention(ctypes.Structure):
    """Mirrors the structure of this name in kernels/problems.h."""

    _fields_ = (
        *((name, Map) for name in ("x", "out")),
        *((name, ctypes.c_void_p) for name in ("large_kernel", "dynamic_kernel")),
        *(
            (name, ctypes.c_int64)
            for name in ("pictures", "channels", "height", "width", "size", "dynamic_size")
        ),
    )


class FeedForward(ctypes.Structure):
    """Mirrors the structure of this name in kernels/problems.h."""

    _fields_ = (
        *((name, Map) for name in ("x", "out")),
        *(
            (f"{layer}_{name}", ctypes.c_void_p)
            for layer in ("expand", "depthwise", "project")
            for name in ("weight", "bias")
        ),
        *((name, ctypes.c_int64) for name in ("pictures", "channels", "height", "width", "hidden")),
    )


class Pointwise(ctypes.Structure):
    """Mirrors the structure of this name in kernels/problems.h."""

    _fields_ = (
        *((name, Map) for name in ("x", "other", "out")),
        *((name, ctypes.c_void_p) for name in ("weight", "bias")),
        *(
            (name, ctypes.c_int64)
            for name in ("pictures", "channels", "other_channels", "out_channels", "height", "width")
        ),
    )


class WindowAttention(ctypes.Structure):
    """Mirrors the structure of this name in kernels/problems.h."""

    _fields_ = (
        *((name, Map) for name in ("q", "k", "v", "out")),
        ("bias", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("pictures", "heads", "head_dim", "height", "width", "window")),
    )


def run(kernel: str, problem: ctypes.Structure) -> bool:
    """Compute on as many threads as torch does.

    Returns:
        Whether the kernel took the problem.

    Raises:
        MemoryError: There is too little memory.
    """
    status = getattr(library, f"convattn_{kernel}")(ctypes.byref(problem), torch.get_num_threads())
    if status == _NO_MEMORY:
        raise MemoryError(f"too little memory for {kernel}")
    return status == _DONE


_DONE, _NO_MEMORY = 0, 1


def _load(folder: Path) -> ctypes.CDLL | None:
    """The library in a folder, or None with a warning where this package was built without it."""
    try:
        loaded = ctypes.CDLL(str(next(folder.glob("_kernels.*"))))
    except (StopIteration, OSError):
        warnings.warn(
            "convattn runs without its compiled kernels, so networks are slower on a CPU; "
            "install it where there is a C++ compiler (GCC or Clang) to have them",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    loaded.convattn_instruction_set.restype = ctypes.c_char_p
    # Two pools of threads would fight for the same cores, so the kernels borrow the one torch was linked to.
    parallel = getattr(ctypes.CDLL(torch._C.__file__), "GOMP_parallel", None)
    loaded.convattn_use_openmp(ctypes.cast(parallel, ctypes.c_void_p) if parallel else None)
    return loaded


library = _load(Path(__file__).parent)
