"""Fused operators give what calls of the modules give, and hooks of every kind still work."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils.parametrizations import weight_norm

from convattn.layers.fusion import Conv2d, can_fuse
from convattn.models.registry import build


def lively(name: str = "esc-nano") -> nn.Module:
    """A network whose parameters all take part in the result."""
    network = build(name, 2).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network


def convolutions(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize("name", ["esc-nano", "esc-fp"])
def test_called_modules_compute_what_fused_ones_do(name: str) -> None:
    network, x = lively(name), torch.rand(1, 3, 20, 17)
    hooked = copy.deepcopy(network)
    for module in hooked.modules():
        module.register_forward_hook(lambda *_: None)
    with torch.inference_mode():
        torch.testing.assert_close(hooked(x), network(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["forward", "forward_pre"])
def test_hooks_of_single_modules_are_called(kind: str) -> None:
    network, called = lively(), set()
    modules = [module for module in network.modules() if not isinstance(module, nn.ModuleList)]
    for module in modules:
        getattr(module, f"register_{kind}_hook")(lambda module, *_: called.add(module))
    with torch.inference_mode():
        network(torch.rand(1, 3, 9, 9))
    assert called == set(modules)


@pytest.mark.parametrize("register", [register_module_forward_hook, register_module_forward_pre_hook])
def test_hooks_of_all_modules_are_called(register: Callable[..., Any]) -> None:
    network, called = lively(), set()
    handle = register(lambda module, *_: called.add(module))
    try:
        with torch.inference_mode():
            network(torch.rand(1, 3, 9, 9))
    finally:
        handle.remove()
    assert called >= set(convolutions(network))
    called.clear()
    with torch.inference_mode():
        network(torch.rand(1, 3, 9, 9))
    assert not called


def test_backward_hooks_are_called() -> None:
    network, called = lively(), set()
    for module in convolutions(network):
        module.register_full_backward_hook(lambda module, *_: called.add(module))
    network(torch.rand(1, 3, 9, 9)).sum().backward()
    assert called == set(convolutions(network))


def test_a_hook_that_replaces_an_output_changes_the_result() -> None:
    network, x = lively(), torch.rand(1, 3, 9, 9)
    with torch.inference_mode():
        before = network(x)
        handle = network.features.blocks[0].ffn.depthwise.register_forward_hook(lambda _, __, out: 0 * out)
        assert not torch.allclose(network(x), before)
        handle.remove()
        torch.testing.assert_close(network(x), before, rtol=1e-4, atol=1e-4)


def test_replaced_and_parametrized_modules_are_called() -> None:
    class Doubled(Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    plain, doubled = Conv2d(3, 3, 1), Doubled(3, 3, 1)
    assert can_fuse(plain, None)
    assert not can_fuse(doubled)
    assert not can_fuse(weight_norm(copy.deepcopy(plain)))
    plain.forward = lambda x: x  # type: ignore[method-assign, assignment]
    assert not can_fuse(plain)


@pytest.mark.parametrize(
    "register",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
        "register_backward_hook",
    ],
)
def test_hooked_modules_are_called(register: str) -> None:
    conv = Conv2d(3, 3, 1)
    getattr(conv, register)(lambda *_: None)
    assert not can_fuse(conv)


def test_features_that_a_hook_keeps_are_not_overwritten() -> None:
    network, kept, x = lively(), [], torch.rand(1, 3, 20, 17)
    layer = network.features.blocks[0].layers[0]
    layer.ffn.register_forward_hook(lambda module, args, out: kept.append((out, out.clone())))
    with torch.inference_mode():
        network(x)
    assert torch.equal(*kept[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_leaves_its_input_alone(dtype: torch.dtype) -> None:
    network = lively().to(dtype)
    block, large_kernel = network.features.blocks[0], network.features.large_kernel()
    x = torch.rand(1, network.features.dim, 20, 17).to(dtype, memory_format=torch.channels_last)
    before = x.clone()
    with torch.inference_mode():
        block(x, large_kernel)
        block.layers[0](x, large_kernel)
    assert torch.equal(x, before)
