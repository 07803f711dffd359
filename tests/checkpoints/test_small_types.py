"""Weights of few bits are taken at their values, with a word."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from convattn.checkpoints.loading import load_network
from convattn.models.registry import build


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_of_8_bits_are_read_with_a_warning(tmp_path: Path, dtype: torch.dtype, suffix: str) -> None:
    small = {key: tensor.to(dtype) for key, tensor in build("esc-nano", 2).state_dict().items()}
    path = tmp_path / f"a.{suffix}"
    save_file(small, path) if suffix == "safetensors" else torch.save(small, path)
    with pytest.warns(UserWarning, match=r"holds weights of 8 bits, which upscale worse"):
        network = load_network(path)
    for key, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, small[key].float(), rtol=0, atol=0)
