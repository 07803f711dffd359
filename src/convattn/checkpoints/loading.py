"""Weights of the super-resolution networks: files of every known layout, bundled weights, the Hub.

All hyper-parameters of a network follow from the shapes of its tensors, so a file needs nothing beside them.
"""

import itertools
import math
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn

import convattn
from convattn.checkpoints.key_names import StateDict, from_reference, to_reference
from convattn.checkpoints.spandrel_model import foreign_network
from convattn.errors import InputError
from convattn.files import replacing
from convattn.images.sizes import ScaleRequest
from convattn.models.networks import ESC, ESCLTE, NAMES, ESCReal, build
from convattn.models.upsamplers import DySample, NearestConvUpsampler
from convattn.runtimes import exported

__all__ = [
    "bundled",
    "default_model",
    "describe",
    "from_pretrained",
    "load_network",
    "network_of",
    "save_network",
    "transfer_scale",
]

SUFFIXES = (".safetensors", ".pth", ".pt")
_BUNDLED = Path(__file__).parent / "bundled"


def load_network(path: str | os.PathLike[str]) -> nn.Module:
    """Load a network from a file of any known layout: the reference code's, neosr's or our own.

    Networks of other architectures come as :class:`~convattn.checkpoints.spandrel_model.SpandrelModel`, if
    spandrel is here.

    Args:
        path: A .safetensors, .pth or .pt file, of which only tensors are ever unpickled; or an exported
            network, see :func:`convattn.runtimes.exported.load_exported`.

    Returns:
        The network in float32 on the CPU, in evaluation mode.

    Raises:
        InputError: The file cannot be read, is damaged or holds no network that is known.
    """
    path = Path(path)
    if path.suffix in exported.SUFFIXES:
        return exported.load_exported(path)
    state = _read(path)
    try:
        return network_of(state)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
        return foreign_network(state, str(path))


def save_network(
    network: nn.Module,
    path: str | os.PathLike[str],
    *,
    layout: Literal["convattn", "reference"] = "convattn",
    metadata: Mapping[str, object] | None = None,
) -> None:
    """Save the weights of a network; an existing file is replaced only once the new one is whole.

    Args:
        network: One of :mod:`convattn.models.networks`.
        path: A .safetensors file, or in the reference layout a .pth or .pt file as well.
        layout: "convattn", or "reference" for tools that know the reference code's names.
        metadata: What else to write into the header of a .safetensors file.

    Raises:
        InputError: The file cannot be written there, or not under that name.
    """
    path = Path(path)
    suffixes = SUFFIXES if layout == "reference" else SUFFIXES[:1]
    if path.suffix not in suffixes:
        raise InputError(
            f"{path.name} cannot hold weights in the {layout} layout; give it the suffix "
            f"{' or '.join(suffixes)}."
        )
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in _bare(network.state_dict()).items()}
    header = describe(network)
    if layout == "reference":
        state = to_reference(state)
        header["format"] = "pt"
    header |= {key: str(value) for key, value in (metadata or {}).items()}
    with replacing(path) as temporary:
        if path.suffix == ".safetensors":
            temporary.write_bytes(save(state, header))  # save_file would hide it from other users
        else:
            torch.save(
                {"model": {"sd": state}} if network.scale is None else {"params_ema": state}, temporary
            )


def describe(network: nn.Module) -> dict[str, str]:
    """What a file should say of the network that it holds: its name, its scale and convattn's version."""
    about = {"format": "convattn", "network": _name(network), "version": convattn.__version__}
    return about | ({"scale": str(network.scale)} if network.scale else {})


def from_pretrained(source: str | os.PathLike[str], scale: int | None = None) -> nn.Module:
    """Load a trained network by name, file or address.

    Args:
        source: The name of weights that ship with convattn, a file, the folder of one, or a Hugging Face Hub
            id: "user/repo" or "user/repo/file.safetensors".
        scale: How many times larger the result shall be; chooses among weights that exist at several scales.

    Returns:
        The network in float32 on the CPU, in evaluation mode.

    Raises:
        InputError: There are no such weights, or not at that scale.
    """
    name = os.fspath(source)
    shipped = bundled()
    if name in shipped:
        network = load_network(_BUNDLED / _file_of(name, shipped[name], scale))
    elif Path(name).expanduser().is_file():
        network = load_network(Path(name).expanduser())
    elif name and Path(name).expanduser().is_dir():
        folder = Path(name).expanduser()
        network = load_network(folder / _choose(name, sorted(os.listdir(folder)), scale))
    elif _is_hub_id(name):
        network = load_network(_download(name, scale))
    else:
        raise InputError(
            f"There are no weights {name!r}; give a file, a Hugging Face Hub id such as user/repo, or a name "
            f"that ships with convattn ({', '.join(shipped)})."
        )
    if scale is not None and network.scale not in (None, scale):
        raise InputError(
            f"{name} upscales {network.scale} times, not {scale} times; ask for {network.scale}."
        )
    return network


def bundled() -> dict[str, list[int]]:
    """The scales of the weights that ship with convattn, by name; none for networks of any scale."""
    shipped: dict[str, list[int]] = {}
    for file in sorted(_BUNDLED.glob("*.safetensors")):
        name, scale = re.fullmatch(r"(.+?)(?:-x(\d+))?", file.stem).groups()  # type: ignore[union-attr]
        shipped.setdefault(name, []).extend([int(scale)] if scale else [])
    return shipped


def default_model(wish: ScaleRequest | None) -> str:
    """The name of the weights that ship for what is wished for, as far as anything is."""
    return "esc-nano" if wish is None or wish.whole_scale in bundled()["esc-nano"] else "esc-nano-lte"


def _file_of(name: str, scales: list[int], scale: int | None) -> str:
    if not scales:
        return f"{name}.safetensors"
    if scale is None and len(scales) == 1:
        (scale,) = scales
    if scale not in scales:
        choices = ", ".join(map(str, scales))
        raise InputError(
            f"The weights {name} exist at scale {choices}; choose one of these scales, or the weights "
            "esc-nano-lte, which upscale by any."
        )
    return f"{name}-x{scale}.safetensors"


def transfer_scale(state_dict: Mapping[str, Tensor], scale: int) -> StateDict:
    """Weights of a network of one scale as the start of the same network at another.

    The last convolution makes, for each color, a square of s×s output pixels; those squares are resized
    bilinearly. This is how the published ×3 and ×4 networks start from ×2.

    Args:
        state_dict: Of an :class:`~convattn.models.networks.ESC`.
        scale: The other scale.

    Returns:
        A new state dict; tensors that do not depend on the scale are shared.

    Raises:
        InputError: The weights are of a network that makes its image in another way.
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


def _is_hub_id(name: str) -> bool:
    """user/repo or user/repo/file.pth, but not folder/file.pth, which is a file that is missing."""
    parts = name.count("/") + 1
    return (
        re.match(r"\w", name) is not None
        and parts > 1
        and (parts == 2) != name.endswith(SUFFIXES + exported.SUFFIXES)
    )


def _download(name: str, scale: int | None) -> str:
    """Fetch weights from the Hugging Face Hub, or find them in its cache."""
    from huggingface_hub import hf_hub_download, list_repo_files

    user, repo, *file = name.split("/", 2)
    repository = f"{user}/{repo}"
    try:
        choice = file[0] if file else _choose(repository, list_repo_files(repository), scale)
        return hf_hub_download(repository, choice)
    except InputError:
        raise
    except Exception as error:  # whatever a network connection can do
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise InputError(
            f"{name} is no file here and not to be had from the Hugging Face Hub: {reason}."
        ) from error


def _choose(place: str, files: list[str], scale: int | None) -> str:
    """The one file of weights, or of weights of that scale, among those in a place."""
    weights = [file for file in files if file.endswith(SUFFIXES)]
    if scale:
        weights = [file for file in weights if re.search(rf"x{scale}(?!\d)", file)] or weights
    if len(weights) != 1:
        raise InputError(
            f"Of the files in {place}, {', '.join(weights) or 'none'} could be meant; name one, as "
            f"{place}/weights.safetensors."
        )
    return weights[0]


def _read(path: Path) -> StateDict:
    """All tensors of a file, numbers in float32, without what training code puts around them."""
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    try:
        if path.suffix == ".safetensors":
            loaded = load_file(path)
        else:
            loaded = _unwrap(torch.load(path, map_location="cpu", weights_only=True))
        return _bare({key: _widened(value) for key, value in loaded.items() if isinstance(value, Tensor)})
    except Exception as error:  # damaged bytes make a reader raise anything
        raise InputError(
            f"{path} cannot be read as weights: it is damaged, of another kind, or holds more than tensors, "
            "which could run code and is never unpickled."
        ) from error


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _unwrap(loaded: Any) -> Any:
    for key in ("params_ema", "params", "model", "sd", "state_dict", "model_state_dict", "net"):
        if isinstance(loaded, dict) and key in loaded:
            return _unwrap(loaded[key])
    return loaded


def _bare(state: Mapping[str, Tensor]) -> StateDict:
    """Without the prefixes of data-parallel and compiled modules."""
    return {re.sub(r"^(?:module\.|_orig_mod\.)+", "", key): tensor for key, tensor in state.items()}


def network_of(state: StateDict) -> nn.Module:
    """Build the ESC network that tensors belong to, by their names in any known layout and their shapes.

    Raises:
        LookupError: They belong to none; odd shapes may also lead to an ArithmeticError, a RuntimeError, a
            TypeError or a ValueError.
    """
    if not any(key.startswith("features.") for key in state):
        state = from_reference(state)
    # Without memory of its own, and without drawing the random numbers of an initialisation.
    with torch.device("meta"):
        network = _blank(state)
    network.load_state_dict(state, assign=True)
    return network.eval()


def _blank(state: StateDict) -> nn.Module:
    """The network that tensors of these shapes belong to."""
    features = _hyper_parameters(state)
    if "estimator.phase.weight" in state:
        return ESCLTE(hidden=2 * len(state["estimator.phase.weight"]), **features)
    if "image_skip.project.weight" in state:
        return ESCReal(upsampler=_upsampler(state), **features)
    scale = math.isqrt(len(state["to_image.weight"]) // 3)
    return ESC(scale=scale, image_skip="bicubic" if features["factored"] else "nearest", **features)


def _hyper_parameters(state: StateDict) -> dict[str, Any]:
    block = "features.blocks.0."
    factored = "features.large_kernel.pointwise" in state
    kernel = state["features.large_kernel.depthwise" if factored else "features.large_kernel.weight"]
    heads, biases = state[block + "attention.relative_position_bias"].shape
    dim = len(state["features.shallow.weight"])
    return dict(
        dim=dim,
        large_kernel_dim=kernel.shape[0],
        large_kernel_size=kernel.shape[-1],
        blocks=len(_numbers(state, r"features\.blocks\.(\d+)\.")),
        layers=len(_numbers(state, r"features\.blocks\.0\.layers\.(\d+)\.")),
        window_size=(math.isqrt(biases) + 1) // 2,
        heads=heads,
        # Fractions, so that the hidden channels come out exact again.
        ffn_ratio=Fraction(len(state[block + "layers.0.ffn.expand.weight"]), dim),
        first_ffn_ratio=Fraction(len(state[block + "ffn.expand.weight"]), dim),
        norm=block + "layers.0.norm.weight" in state,
        factored=factored,
    )


def _upsampler(state: StateDict) -> partial[NearestConvUpsampler] | partial[DySample]:
    if "upsampler.start" in state:
        start = state["upsampler.start"]
        scale = round(1 / (1 - 2 * start.max().item()))  # the last place is (scale - 1) / (2 · scale)
        return partial(DySample, scale=scale, groups=start.numel() // (2 * scale**2))
    *positions, _ = _numbers(state, r"upsampler\.(\d+)\.")
    # Convolutions lie 2 apart, and 3 apart where a doubling comes between them.
    doublings = [position for position in positions if position - 2 not in positions]
    counts = [sum(first <= position for position in positions) for first in doublings]
    return partial(
        NearestConvUpsampler,
        convs=[a - b for a, b in itertools.pairwise([*counts, 0])],
        width=len(state[f"upsampler.{positions[0]}.weight"]),
    )


def _numbers(state: Iterable[str], pattern: str) -> list[int]:
    """The numbers that a pattern finds in names, in order, each once."""
    return sorted({int(match[1]) for key in state if (match := re.match(pattern, key))})


def _name(network: nn.Module) -> str:
    """The name of the published network, or of our own, whose tensors have these shapes."""
    scale: Any = network.scale
    shapes = _shapes(network)
    return next(
        (name for name in NAMES if _known_shapes(name, scale) == shapes),
        "custom",
    )


@cache
def _known_shapes(name: str, scale: int | None) -> dict[str, torch.Size] | None:
    with suppress(InputError), torch.device("meta"):
        return _shapes(build(name, scale))
    return None


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in _bare(network.state_dict()).items()}
