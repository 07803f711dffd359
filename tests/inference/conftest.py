"""A network whose result is known, and random images."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Bicubic(torch.nn.Module):
    """A network that overshoots at edges and whose result is known."""

    def __init__(self, scale: int = 2) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=self.scale, mode="bicubic")


DTYPES = [torch.uint8, torch.uint16, torch.float32, torch.float64, torch.float16]


def pixels(*shape: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def image_tensor(*shape: int, dtype: torch.dtype) -> Tensor:
    if dtype.is_floating_point:
        return torch.rand(shape).to(dtype)
    numpy_dtype = {torch.uint8: np.uint8, torch.uint16: np.uint16}[dtype]
    return torch.from_numpy(pixels(*shape, dtype=numpy_dtype))
