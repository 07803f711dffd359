"""Loading and saving networks: weights files of any known format, names of models, the Hugging Face Hub.

The names and shapes of the tensors determine every hyper-parameter, so a weights file needs no configuration
beside it.
"""

import math
import os
import re
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
from convattn.checkpoints import catalog
from convattn.checkpoints.architecture import network_of
from convattn.checkpoints.key_names import StateDict, to_reference
from convattn.checkpoints.spandrel_model import spandrel_network
from convattn.checkpoints.state_dict import read_state_dict, unwrapped_candidates, without_wrappers
from convattn.errors import InputError
from convattn.files import replacing
from convattn.models.registry import NAMES, build
from convattn.runtimes import exported

__all__ = ["describe", "from_pretrained", "load_network", "save_network", "transfer_scale"]

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")


def load_network(path: str | os.PathLike[str]) -> nn.Module:
    """Load a network from a file: weights of ESC in any known format, of spandrel's models, or an export.

    Weights may have the key names of the reference code, of neosr or of convattn, and the prefixes that
    trainers add. Networks of other architectures need spandrel and come as
    :class:`~convattn.checkpoints.spandrel_model.SpandrelModel`.

    Args:
        path: A .safetensors, .pth, .pt or .ckpt file, from which only tensors are unpickled; or an exported
            network, see :func:`convattn.runtimes.exported.load_exported`.

    Returns:
        The network in float32 on the CPU, in evaluation mode.

    Raises:
        InputError: The file cannot be read, is damaged, holds no known network, or holds values that are not
            finite.
    """
    path = Path(path)
    if path.suffix in exported.SUFFIXES:
        return exported.load_exported(path)
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


def from_pretrained(source: str | os.PathLike[str], scale: int | None = None) -> nn.Module:
    """Load a trained network by the name of a model, by file, or from the Hugging Face Hub.

    Args:
        source: The name of a model in the catalog (``convattn models`` lists them), which is downloaded at
            its first use if it does not ship with convattn; a file; a folder with one weights file; or a
            Hugging Face Hub id, "user/repo" or "user/repo/file.safetensors".
        scale: Upscaling factor; selects among weights that exist for several scales.

    Returns:
        The network in float32 on the CPU, in evaluation mode.

    Raises:
        InputError: There are no such weights, they are not available at that scale, or cannot be downloaded.
    """
    name = os.fspath(source)
    if model := catalog.find(name):
        network = load_network(model.file(scale, check=load_network))
    else:
        network = load_network(_locate(name, scale))
    if scale is not None and network.scale not in (None, scale):
        raise InputError(f"{name} upscales ×{network.scale}, not ×{scale}; use scale {network.scale}.")
    return network


def _locate(name: str, scale: int | None) -> str | Path:
    """Return the weights file that a file name, a folder or a Hub id stands for."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if name and path.is_dir():
        return path / _choose(name, sorted(os.listdir(path)), scale)
    if _is_hub_id(name):
        return _download_from_hub(name, scale)
    raise InputError(
        f"There are no weights {name!r}; give a file, a Hugging Face Hub id such as user/repo, or the name "
        f"of a model ({', '.join(catalog.models())}).{catalog.suggestion(name)}"
    )


def _is_hub_id(name: str) -> bool:
    """Whether a name is user/repo or user/repo/file.pth; folder/file.pth is a file that is missing."""
    parts = name.count("/") + 1
    return (
        re.match(r"\w", name) is not None
        and parts > 1
        and (parts == 2) != name.endswith(SUFFIXES + exported.SUFFIXES)
    )


def _download_from_hub(name: str, scale: int | None) -> str:
    """Fetch weights from the Hugging Face Hub, or find them in its cache."""
    from huggingface_hub import hf_hub_download, list_repo_files

    user, repo, *file = name.split("/", 2)
    repository = f"{user}/{repo}"
    try:
        choice = file[0] if file else _choose(repository, list_repo_files(repository), scale)
        return hf_hub_download(repository, choice)
    except InputError:
        raise
    except Exception as error:  # a network connection can raise anything
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise InputError(
            f"{name} is neither a file here nor available from the Hugging Face Hub: {reason}."
        ) from error


def _choose(place: str, files: list[str], scale: int | None) -> str:
    """Return the only weights file, or the only one of that scale, among the files in a place."""
    weights = [file for file in files if file.endswith(SUFFIXES)]
    if scale:
        weights = [file for file in weights if re.search(rf"x{scale}(?!\d)", file)] or weights
    if len(weights) != 1:
        raise InputError(
            f"Of the files in {place}, {', '.join(weights) or 'none'} could be meant; name one, as in "
            f"{place}/weights.safetensors."
        )
    return weights[0]


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
