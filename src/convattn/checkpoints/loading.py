"""Loading and saving the weights of networks, in any known format.

The names and shapes of the tensors determine every hyper-parameter, so a weights file needs no configuration
beside it.
"""

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

import convattn
from convattn.checkpoints.architecture import network_of
from convattn.checkpoints.key_names import StateDict, to_reference
from convattn.checkpoints.spandrel_model import spandrel_network
from convattn.checkpoints.state_dict import read_state_dict, unwrapped_candidates, without_wrappers
from convattn.errors import InputError
from convattn.files import replacing
from convattn.models.registry import NAMES, build

__all__ = ["SUFFIXES", "describe", "load_network", "save_network", "transfer_scale"]

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")
"""Of weights files."""


def load_network(path: str | os.PathLike[str]) -> nn.Module:
    """Load a network from a weights file: of ESC in any known format, or of an architecture of spandrel.

    Weights may have the key names of the reference code, of neosr or of convattn, and the prefixes that
    trainers add. Networks of other architectures need spandrel and come as
    :class:`~convattn.checkpoints.spandrel_model.SpandrelModel`.

    Args:
        path: A .safetensors, .pth, .pt or .ckpt file, from which only tensors are unpickled.

    Returns:
        The network in float32 on the CPU, in evaluation mode.

    Raises:
        InputError: The file cannot be read, is damaged, holds no known network, or holds values that are not
            finite.
    """
    path = Path(path)
    network = _network(read_state_dict(path), str(path))
    if not all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values()):
        raise InputError(
            f"{path} holds weights that are not finite (NaN or infinity); its training diverged, so use an "
            "earlier checkpoint."
        )
    return network


def _network(state: StateDict, name: str) -> nn.Module:
    for candidate in unwrapped_candidates(state):
        with suppress(ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
            return network_of(candidate)
    return spandrel_network(state, name)


def save_network(
    network: nn.Module,
    path: str | os.PathLike[str],
    *,
    layout: Literal["convattn", "reference"] = "convattn",
    metadata: Mapping[str, object] | None = None,
) -> None:
    """Save the weights of a network; an existing file is replaced only once the new one is complete.

    Args:
        network: One of :mod:`convattn.models.registry`.
        path: A .safetensors file, or in the reference layout a .pth or .pt file as well.
        layout: "convattn", or "reference" for tools that expect the key names of the reference code.
        metadata: More entries for the header of a .safetensors file, such as those of a
            :class:`~convattn.checkpoints.model_card.ModelCard`.

    Raises:
        InputError: The file cannot be written there, or not under that name.
    """
    path = Path(path)
    suffixes = SUFFIXES[:3] if layout == "reference" else SUFFIXES[:1]
    if path.suffix not in suffixes:
        raise InputError(
            f"{path.name} cannot hold weights in the {layout} layout; use the suffix {' or '.join(suffixes)}."
        )
    tensors = without_wrappers(network.state_dict())
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    header = describe(network)
    if layout == "reference":
        state = to_reference(state)
        header["format"] = "pt"
    header |= {key: str(value) for key, value in (metadata or {}).items()}
    with replacing(path) as temporary:
        if path.suffix == ".safetensors":
            temporary.write_bytes(
                save(state, header)
            )  # save_file creates files that only their owner can read
        else:
            container = {"model": {"sd": state}} if network.scale is None else {"params_ema": state}
            torch.save(container, temporary)


def describe(network: nn.Module) -> dict[str, str]:
    """Return what a file's header says of its network: the name, the scale and convattn's version."""
    about = {"format": "convattn", "network": _name(network), "version": convattn.__version__}
    return about | ({"scale": str(network.scale)} if network.scale else {})


def transfer_scale(state_dict: Mapping[str, Tensor], scale: int) -> StateDict:
    """Return the weights of a classic network as initial weights for the same network at another scale.

    The last convolution makes, for each color, a square of s×s output pixels; those squares are resized
    bilinearly. The published ×3 and ×4 networks start from ×2 in this way.

    Args:
        state_dict: Of an :class:`~convattn.models.esc.ESC`.
        scale: The new scale.

    Returns:
        A new state dict; tensors that do not depend on the scale are shared.

    Raises:
        InputError: The weights are not those of a classic network.
    """
    if "to_image.weight" not in state_dict:
        raise InputError(
            "Only weights of classic networks (ESC, ESC-light, ESC-FP, ESC-XL, esc-nano) change scale."
        )
    last = {key: _resize_squares(state_dict[key], scale) for key in ("to_image.weight", "to_image.bias")}
    return {**state_dict, **last}


def _resize_squares(tensor: Tensor, scale: int) -> Tensor:
    """(3·r², …) to (3·scale², …)."""
    side = math.isqrt(len(tensor) // 3)
    squares = tensor.reshape(3, side, side, -1).movedim(-1, 0)
    resized = F.interpolate(squares, (scale, scale), mode="bilinear", align_corners=False)
    return resized.movedim(0, -1).reshape(-1, *tensor.shape[1:])


def _name(network: nn.Module) -> str:
    """Return the name of the known network whose tensors have these shapes, or "custom"."""
    scale: Any = network.scale
    shapes = _shapes(network)
    return next((name for name in NAMES if _known_shapes(name, scale) == shapes), "custom")


@cache
def _known_shapes(name: str, scale: int | None) -> dict[str, torch.Size] | None:
    with suppress(InputError), torch.device("meta"):
        return _shapes(build(name, scale))
    return None


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in without_wrappers(network.state_dict()).items()}
