"""State dicts in files: read without running code, bounded by the file's size, and unwrapped."""

import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from convattn.checkpoints.key_names import StateDict
from convattn.errors import InputError

__all__ = ["read_state_dict", "unwrapped_candidates", "without_wrappers"]

_CONTAINERS = (
    *("params_ema", "params", "model", "sd", "state_dict", "model_state_dict", "net"),
    *("ema_state_dict", "model_ema", "g_ema", "ema", "generator", "g", "weights"),
)
"""Keys under which training code stores a state dict, best first."""

_PREFIXES = (
    *("net_g_ema.", "generator_ema.", "ema_model.", "ema."),
    *("net_g.", "netG.", "generator.", "model.", "network.", "module.", "_orig_mod."),
)
"""What trainers put before the names of a network's tensors, best first."""

_LARGEST_EXPANSION = 4
"""Tensors may take this many times the bytes of their file, since checkpoints share tensors."""


def read_state_dict(path: Path) -> StateDict:
    """Return all tensors of a weights file, floating-point ones in float32.

    Args:
        path: A .safetensors file, or a file that torch saved. Only tensors are unpickled.

    Raises:
        InputError: The file is missing, damaged, holds more than tensors, or declares tensors much larger
            than itself.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces TorchScript archives before it refuses them
            loaded = load_file(path) if path.suffix == ".safetensors" else _load_pickle(path)
        tensors = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
        if any(tensor.layout != torch.strided or tensor.is_complex() for tensor in tensors.values()):
            raise ValueError("sparse or complex tensors")
        _check_size(tensors, path)
        if any(tensor.is_floating_point() and tensor.element_size() == 1 for tensor in tensors.values()):
            warnings.warn(
                f"{path} holds weights of 8 bits, which upscale worse than those of 16 or 32.", stacklevel=4
            )
        return {
            key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()
        }
    except Exception as error:  # damaged bytes make a reader raise anything
        raise InputError(
            f"{path} cannot be read as weights: it is damaged, of another kind, or holds more than tensors, "
            "which could run code and is never unpickled."
        ) from error


def unwrapped_candidates(state: StateDict) -> Iterator[StateDict]:
    """Yield a state dict as it is, then the parts of it under each known prefix, without the prefix."""
    yield state
    for prefix in _PREFIXES:
        inner = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
        if inner:
            yield from unwrapped_candidates(inner)


def without_wrappers(state: Mapping[str, Tensor]) -> StateDict:
    """Return a state dict without the prefixes of data-parallel and compiled modules."""
    return {re.sub(r"^(?:module\.|_orig_mod\.)+", "", key): tensor for key, tensor in state.items()}


def _load_pickle(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _require_at_most(sum(entry.file_size for entry in archive.infolist()), path)
    return _unwrap(torch.load(path, map_location="cpu", weights_only=True))


def _unwrap(loaded: Any) -> Any:
    for key in _CONTAINERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            return _unwrap(loaded[key])
    return loaded


def _check_size(tensors: StateDict, path: Path) -> None:
    """Refuse views that are larger than their storage, such as those with stride 0."""
    _require_at_most(sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()), path)


def _require_at_most(size: int, path: Path) -> None:
    if size > _LARGEST_EXPANSION * path.stat().st_size:
        raise ValueError(f"{size} bytes in a file of {path.stat().st_size}")
