"""The compiled kernels: the shared library beside this file, and what it is asked to compute."""

import ctypes
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "ConvAttention",
    "ConvAttentionGradient",
    "Convolution",
    "ConvolutionGradient",
    "FeedForward",
    "FeedForwardGradient",
    "Map",
    "Norm",
    "WindowAttention",
    "WindowAttentionGradient",
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
        """The map that a tensor (N, C, H, W) holds; the tensor must outlive it."""
        return cls() if x is None else cls(x.data_ptr(), x.stride())


class Norm(ctypes.Structure):
    """Mirrors the structure of this name in kernels/problems.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weight", "bias")),
        ("epsilon", ctypes.c_double),
    )

    @classmethod
    def of(cls, weight: Tensor | None, bias: Tensor | None, epsilon: float) -> "Norm":
        """Of tensors (C,), which must outlive it as :attr:`tensors` does; none where they are None."""
        if weight is None or bias is None:
            return cls()
        weight, bias = weight.contiguous(), bias.contiguous()
        norm = cls(weight.data_ptr(), bias.data_ptr(), epsilon)
        norm.tensors = (weight, bias)
        return norm

    tensors: tuple[Tensor, ...] = ()


def _maps(*names: str) -> tuple[tuple[str, Any], ...]:
    return tuple((name, Map) for name in names)


def _pointers(*names: str) -> tuple[tuple[str, Any], ...]:
    return tuple((name, ctypes.c_void_p) for name in names)


def _sizes(*names: str) -> tuple[tuple[str, Any], ...]:
    return tuple((name, ctypes.c_int64) for name in names)


_LAYERS = ("expand_weight", "expand_bias", "depthwise_weight", "depthwise_bias", "project_weight")
_PREDICTOR = ("reduce_weight", "reduce_bias", "expand_weight", "expand_bias")
_CHANNELS = ("images", "channels", "other_channels", "out_channels", "height", "width")
_WINDOWS = ("images", "heads", "head_dim", "height", "width", "window")


class ConvAttention(ctypes.Structure):
    """Mirrors the structure of this name in kernels/problems.h, as all that follow."""

    _fields_ = (
        *_maps("x", "out"),
        *_pointers("large_kernel", "dynamic_kernel", *_PREDICTOR),
        *_sizes("images", "channels", "height", "width", "size", "dynamic_size", "hidden"),
    )
    tensors: tuple[Tensor, ...] = ()  # the problem keeps them


class Convolution(ctypes.Structure):
    """A 1×1 or 3×3 convolution."""

    _fields_ = (
        *_maps("x", "other", "residual", "out"),
        ("norm", Norm),
        *_pointers("weight", "bias"),
        *_sizes(*_CHANNELS),
    )


class FeedForward(ctypes.Structure):
    """The feed-forward network."""

    _fields_ = (
        *_maps("x", "out"),
        ("norm", Norm),
        *_pointers(*_LAYERS, "project_bias"),
        *_sizes("images", "channels", "height", "width", "hidden"),
    )


class WindowAttention(ctypes.Structure):
    """Window attention, and self-attention where there is an x."""

    _fields_ = (
        *_maps("x", "q", "k", "v", "out"),
        ("norm", Norm),
        *_pointers("weight", "bias", "table"),
        *_sizes(*_WINDOWS),
    )


class ConvAttentionGradient(ctypes.Structure):
    """Of both kernels."""

    _fields_ = (("forward", ConvAttention), *_pointers("sums"))


class ConvolutionGradient(ctypes.Structure):
    """Of 1×1 convolutions, and of the parameters of 3×3 convolutions."""

    _fields_ = (
        *_maps("x", "other", "grad", "x_grad", "other_grad"),
        ("norm", Norm),
        *_pointers("weight", "sums"),
        *_sizes(*_CHANNELS),
    )


class FeedForwardGradient(ctypes.Structure):
    """Of the features and all parameters."""

    _fields_ = (
        *_maps("x", "grad", "x_grad"),
        ("norm", Norm),
        *_pointers(*_LAYERS, "sums"),
        *_sizes("images", "channels", "height", "width", "hidden"),
    )


class WindowAttentionGradient(ctypes.Structure):
    """Of window self-attention in whole windows."""

    _fields_ = (
        *_maps("x", "grad", "x_grad"),
        ("norm", Norm),
        *_pointers("weight", "bias", "table", "sums"),
        *_sizes(*_WINDOWS),
    )


_STRUCTURES = (
    ConvAttention,
    Convolution,
    FeedForward,
    WindowAttention,
    ConvAttentionGradient,
    ConvolutionGradient,
    FeedForwardGradient,
    WindowAttentionGradient,
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
_INTERFACE = 8  # as in kernels/problems.h


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
    for structure in _STRUCTURES:
        if loaded.convattn_size_of(structure.__name__.encode()) != ctypes.sizeof(structure):
            _warn(f"{structure.__name__} has another size here: rebuild them by installing it again")
            return None
    loaded.convattn_instruction_set.restype = ctypes.c_char_p
    requested = os.environ.get("CONVATTN_INSTRUCTION_SET")
    if requested and not loaded.convattn_use_instruction_set(requested.encode()):
        _warn(f"CONVATTN_INSTRUCTION_SET={requested} is none of this processor's: unset it")
        return None
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
