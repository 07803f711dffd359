"""What training code puts around weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from convattn.checkpoints.key_names import to_reference
from convattn.checkpoints.loading import load_network
from convattn.models.registry import build

from .conftest import assert_same_network, small


def zeroed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: 0 * tensor for key, tensor in state.items()}


def prefixed(state: dict[str, Tensor], prefix: str = "module.") -> dict[str, Tensor]:
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"params": state},
        lambda state: {"params_ema": state, "params": zeroed(state)},
        lambda state: {"params": prefixed(state), "iteration": 7, "optimizer": {"state": {}}},
        lambda state: {"model": {"name": "lte", "args": {"width": 256}, "sd": prefixed(state)}, "epoch": 3},
        lambda state: {key: tensor.bfloat16().float().bfloat16() for key, tensor in state.items()},
        lambda state: {"n_averaged": torch.tensor(3), **prefixed(state)},
        lambda state: {"state_dict": prefixed(state, "net_g.") | prefixed({"w": torch.ones(2)}, "net_d.")},
        lambda state: {"state_dict": prefixed(state, "model._orig_mod."), "pytorch-lightning_version": "2"},
        lambda state: prefixed(state, "generator.module."),
        lambda state: (
            prefixed({k: 0 * t for k, t in state.items()}, "net_g.") | prefixed(state, "net_g_ema.")
        ),
    ],
    ids=[
        "bare",
        "params",
        "params_ema",
        "module",
        "LTE",
        "half precision",
        "AveragedModel",
        "Lightning GAN",
        "Lightning compiled",
        "generator",
        "EMA beside the generator",
    ],
)
def test_what_training_code_puts_around_weights(wrap: Callable[..., Any], tmp_path: Path) -> None:
    network = small()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.bfloat16())
    torch.save(wrap(to_reference(network.state_dict())), tmp_path / "network.pth")
    assert_same_network(load_network(tmp_path / "network.pth"), network)


@pytest.mark.parametrize("container", ["generator", "g_ema", "ema_state_dict", "weights"])
def test_state_dicts_lie_in_containers_of_many_trainers(tmp_path: Path, container: str) -> None:
    network = build("esc-nano", 2)
    torch.save({container: network.state_dict(), "step": 3}, tmp_path / "a.pth")
    loaded = load_network(tmp_path / "a.pth").state_dict()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in network.state_dict().items())
