"""Loading networks by the name of a model, by file, or from the Hugging Face Hub."""

import os
import re
from pathlib import Path

from torch import nn

from convattn.checkpoints import catalog
from convattn.checkpoints.loading import SUFFIXES, load_network
from convattn.errors import InputError
from convattn.runtimes.exported import SUFFIXES as EXPORTED
from convattn.runtimes.exported import load_exported

__all__ = ["from_pretrained", "load_model"]


def load_model(path: str | os.PathLike[str]) -> nn.Module:
    """Load a weights file or an exported network.

    Args:
        path: See :func:`convattn.checkpoints.loading.load_network` and
            :func:`convattn.runtimes.exported.load_exported`.

    Raises:
        InputError: The file cannot be read or holds no known network.
    """
    return load_exported(path) if Path(path).suffix in EXPORTED else load_network(path)


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
        network = load_model(_locate(name, scale))
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
        re.match(r"\w", name) is not None and parts > 1 and (parts == 2) != name.endswith(SUFFIXES + EXPORTED)
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
