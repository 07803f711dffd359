"""Small networks with random weights, and what is checked of every file."""

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from convattn.checkpoints.loading import load_network
from convattn.errors import InputError
from convattn.layers import BodyConfig
from convattn.models.esc import ESC
from convattn.models.upsamplers import NearestConvUpsampler

SMALL = dict(dim=8, large_kernel_dim=4, blocks=2, layers=2, window_size=3, heads=2, ffn_ratio=1.25)
CONFIG_FIELDS = {field.name for field in fields(BodyConfig)}
LAYOUTS = [
    ("convattn", ".safetensors"),
    ("reference", ".safetensors"),
    ("reference", ".pth"),
    ("reference", ".pt"),
]
NEAREST = partial(partial, NearestConvUpsampler)


def randomized(network: nn.Module) -> Any:
    """With every parameter drawn anew, so that none is zero and none can be taken for another."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def small(kind: Callable[..., nn.Module] = ESC, **changes: Any) -> Any:
    hyper_parameters = SMALL | {name: changes.pop(name) for name in list(changes) if name in CONFIG_FIELDS}
    defaults = dict(scale=2) if kind is ESC else {}
    return randomized(kind(BodyConfig(**hyper_parameters), **(defaults | changes)))


def assert_same_network(actual: Any, expected: Any) -> None:
    assert type(actual) is type(expected)
    assert actual.scale == expected.scale
    assert not actual.training
    torch.testing.assert_close(actual.state_dict(), expected.state_dict(), rtol=0, atol=0)
    arguments = (torch.rand(1, 3, 5, 4), *([(7, 9)] if expected.scale is None else []))
    with torch.no_grad():
        torch.testing.assert_close(actual(*arguments), expected.eval()(*arguments), rtol=1e-4, atol=1e-4)


def assert_refused(path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        load_network(path)
    message = str(refusal.value)
    assert str(path) in message
    assert message.endswith(".")
    assert "\n" not in message
