"""The compiled kernels: the shared library beside this file, and what it is asked to compute."""

import ctypes
import warnings
from pathlib import Path

import torch
from torch import Tensor

__all__ = [
    "ConvAttention",
    "Convolution",
    "FeedForward",
    "Map",
    "Norm",
    "WindowAttention",
    "library",
    "run",
]


class Map(ctypes.Structure):
    """A feature map (N, C, H, W) of any memory format."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("strides", ctypes.c_int64 * 4),
    )

    @classmethod
    def of(cls, x: Tensor | None) -> "Map":
        """The map that a tensor holds; the tensor must outlive it."""
        return cls() if x is None else cls(x.data_ptr(), x.stride())


class Norm(ctypes.Structure):
    """Mirrors the structure of this name in kernels/problems.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weight", "bias")),
        ("epsilon", ctypes.c_double),
    )

    @classmethod
    def of(cls, weight: Tensor | None, bias: Tensor | None, epsilon: float) -> "Norm":
        """Of tensors, which must outlive it as :attr:`tensors` does; none where they are None."""
        if weight is None or bias is None:
            return cls()
        weight, bias = weight.contiguous(), bias.contiguous()
        norm = cls(weight.data_ptr(), bias.data_ptr(), epsilon)
        norm.tensors = (weight, bias)
        return norm

    tensors: tuple[Tensor, ...] = ()


class ConvAttention(ctypes.Structure):
    """Mirrors the structure of this name in kernels/problems.h."""

    _fields_ = (
        *((name, Map) for name in ("x", "out")),
        *((name, ctypes.c_void_p) for name in ("large_kernel", "dynamic_kernel")),
        *(
            (f"{layer}_{name}", ctypes.c_void_p)
            for layer in ("reduce", "expand")
            for name in ("weight", "bias")
        ),
        *(
            (name, ctypes.c_int64)
            for name in ("images", "channels", "height", "width", "size", "dynamic_size", "hidden")
        ),
    )


class Convolution(ctypes.Structure):
    """Mirrors the structure of this name in kernels/problems.h."""

    _fields_ = (
        *((name, Map) for name in ("x", "other", "residual", "out")),
        ("norm", Norm),
        *((name, ctypes.c_void_p) for name in ("weight", "bias")),
        *(
            (name, ctypes.c_int64)
            for name in ("images", "channels", "other_channels", "out_channels", "height", "width")
        ),
    )


class FeedForward(ctypes.Structure):
    """Mirrors the structure of this name in kernels/problems.h."""

    _fields_ = (
        *((name, Map) for name in ("x", "out")),
        ("norm", Norm),
        *(
            (f"{layer}_{name}", ctypes.c_void_p)
            for layer in ("expand", "depthwise", "project")
            for name in ("weight", "bias")
        ),
        *((name, ctypes.c_int64) for name in ("images", "channels", "height", "width", "hidden")),
    )


class WindowAttention(ctypes.Structure):
    """Mirrors the structure of this name in kernels/problems.h."""

    _fields_ = (
        *((name, Map) for name in ("x", "q", "k", "v", "out")),
        ("norm", Norm),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "table")),
        *((name, ctypes.c_int64) for name in ("images", "heads", "head_dim", "height", "width", "window")),
    )


def run(kernel: str, problem: ctypes.Structure, dtype: torch.dtype) -> bool:
    """Compute with numbers of a type, float32 or bfloat16, on as many threads as torch does.

    Returns:
        Whether the kernel took the problem.

    Raises:
        MemoryError: There is too little memory.
    """
    function = getattr(library, f"convattn_{kernel}_{str(dtype).removeprefix('torch.')}")
    status = function(ctypes.byref(problem), torch.get_num_threads())
    if status == _NO_MEMORY:
        raise MemoryError(f"too little memory for {kernel}")
    return status == _DONE


_DONE, _NO_MEMORY = 0, 1
_INTERFACE = 7  # as in kernels/problems.h


def _load(folder: Path) -> ctypes.CDLL | None:
    """The library in a folder, or None with a warning where there is none that fits this package."""
    try:
        loaded = ctypes.CDLL(str(next(folder.glob("_kernels.*"))))
    except (StopIteration, OSError):
        _warn("install it where there is a C++ compiler (GCC or Clang) to have them")
        return None
    interface = getattr(loaded, "convattn_interface", None)
    if interface is None or interface() != _INTERFACE:
        _warn("those here belong to another version of it: rebuild them by installing it again")
        return None
    for structure in (ConvAttention, Convolution, FeedForward, WindowAttention):
        if loaded.convattn_size_of(structure.__name__.encode()) != ctypes.sizeof(structure):
            _warn(f"{structure.__name__} has another size here: rebuild them by installing it again")
            return None
    loaded.convattn_instruction_set.restype = ctypes.c_char_p
    # Two pools of threads would fight for the same cores, so the kernels borrow the one torch was linked to.
    parallel = getattr(ctypes.CDLL(torch._C.__file__), "GOMP_parallel", None)
    loaded.convattn_use_openmp(ctypes.cast(parallel, ctypes.c_void_p) if parallel else None)
    return loaded


def _warn(remedy: str) -> None:
    warnings.warn(
        f"convattn runs without its compiled kernels, so networks are slower on a CPU; {remedy}",
        RuntimeWarning,
        stacklevel=3,
    )


library = _load(Path(__file__).parent)
