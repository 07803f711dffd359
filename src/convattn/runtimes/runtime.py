"""What every runtime of exported networks provides."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor

from convattn.errors import InputError

__all__ = ["METADATA", "Runtime", "require"]

METADATA = "convattn"
"""The section of a file that describes the network, where its format has sections."""


class Runtime(Protocol):
    """A file opened by the library that computes it.

    Attributes:
        shape: Shape of the input, (N, 3, H, W); None where it is free.
        dtype: Of the input.
        metadata: What the file says about its network.
    """

    shape: Sequence[int | None]
    dtype: torch.dtype
    metadata: Mapping[str, str]

    def __call__(self, x: Tensor) -> Tensor:
        """Upscale (N, 3, H, W) to (N, 3, scale · H, scale · W), on the device of the input where it can."""
        ...


def require(name: str, remedy: str = 'run: pip install "convattn[export]"') -> ModuleType:
    """Import an optional package.

    Raises:
        InputError: It is not installed; the message ends in the remedy.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"This needs {name}, which is not installed; {remedy}.") from error
