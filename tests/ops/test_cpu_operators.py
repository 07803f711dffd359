"""The compiled kernels keep torch's rules, whatever the memory format and the threads."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from convattn.models.registry import build
from convattn.ops import (
    conv_attention,
    predicted_conv_attention,
    window_attention,
)
from convattn.ops.cpu import registration
from convattn.ops.cpu.library import library

from .conftest import (
    conv_input,
    convolution_input,
    convolution_of_one_map,
    feed_forward_input,
    normalized_feed_forward,
    normalized_self_attention,
    predicted_input,
    self_attention_input,
    whole_convolution,
    window_input,
)

pytestmark = pytest.mark.skipif(library is None, reason="the kernels are not built here")


@pytest.mark.parametrize(
    ("operator", "args"),
    [
        (window_attention, window_input(1, 2, 16, 20, 20, 8)),
        (normalized_self_attention, self_attention_input(1, 2, 16, 20, 20, 8)),
        (conv_attention, conv_input(1, 16, 20, 20)),
        (predicted_conv_attention, predicted_input(2, 16, 20, 20)),
        (normalized_feed_forward, feed_forward_input(1, 16, 20, 20, hidden=20)),
        (convolution_of_one_map, [x for x in convolution_input(1, 12, 0, 20, 20, 7, 3) if x.numel()]),
        (whole_convolution, convolution_input(1, 12, 6, 20, 20, 7, 1)),
    ],
    ids=[
        "window_attention",
        "window_self_attention",
        "conv_attention",
        "predicted_conv_attention",
        "feed_forward",
        "convolution",
        "pointwise",
    ],
)
class TestEveryOperator:
    def test_any_memory_format(self, operator: Callable[..., Any], args: list[Tensor]) -> None:
        contiguous = [x.contiguous() for x in args]
        assert torch.equal(operator(*contiguous, backend="cpu"), operator(*args, backend="cpu"))
        mirrored = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in args]
        assert torch.equal(operator(*mirrored, backend="cpu"), operator(*args, backend="cpu"))

    def test_input_is_left_alone(self, operator: Callable[..., Any], args: list[Tensor]) -> None:
        copies = [x.clone() for x in args]
        operator(*args, backend="cpu")
        assert all(map(torch.equal, args, copies))

    def test_threads_change_nothing(self, operator: Callable[..., Any], args: list[Tensor]) -> None:
        threads, outs = torch.get_num_threads(), []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            outs.append(operator(*args, backend="cpu"))
        torch.set_num_threads(threads)
        assert torch.equal(outs[0], outs[1])
        assert torch.equal(outs[0], outs[2])

    def test_gradients_are_the_references(self, operator: Callable[..., Any], args: list[Tensor]) -> None:
        inputs = [x.detach().requires_grad_() for x in args]
        outs = [operator(*inputs, backend=name) for name in ("cpu", "reference")]
        grads = [torch.autograd.grad(out.square().sum(), inputs) for out in outs]
        for ours, theirs in zip(*grads, strict=True):
            tolerance = 1e-4 * theirs.abs().max().item()  # float32 sums of thousands
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=tolerance)

    def test_compiles_into_one_graph(self, operator: Callable[..., Any], args: list[Tensor]) -> None:
        compiled = torch.compile(
            lambda *a: operator(*a, backend="cpu") + 1, backend="aot_eager", fullgraph=True
        )
        torch.testing.assert_close(compiled(*args), operator(*args, backend="cpu") + 1)


def test_keeps_torch_rules() -> None:
    x, other, residual, weight, bias, *norm = convolution_input(1, 12, 6, 20, 20, 7, 1)
    y, _, skip, kernel, start, *scaling = convolution_input(1, 12, 0, 20, 20, 7, 3)
    calls = {
        "window_attention": window_input(1, 2, 16, 20, 20, 8),
        "window_self_attention": [*self_attention_input(1, 2, 16, 20, 20, 8), 1e-6],
        "conv_attention": [*conv_input(1, 16, 20, 20), False],
        "predicted_conv_attention": predicted_input(2, 16, 20, 20),
        "feed_forward": [*feed_forward_input(1, 16, 20, 20, hidden=20), 1e-6],
        "convolution": [y, kernel, start, None, skip, *scaling, 1e-6],
    }
    for name, args in calls.items():
        torch.library.opcheck(getattr(torch.ops.convattn, name).default, args)
    convolution = torch.ops.convattn.convolution.default
    torch.library.opcheck(convolution, [x, weight, bias, other, residual, *norm, 1e-6])
    torch.library.opcheck(convolution, [x, weight[:, :12], bias, *[None] * 4, 0.0])


@pytest.mark.parametrize("size", [(32, 48), (17, 5)])
def test_a_network_is_the_same_with_and_without(size: tuple[int, int]) -> None:
    network, x = build("esc-nano", 2).eval(), torch.rand(2, 3, *size)
    with registration.disabled():
        expected = network(x)
    with torch.no_grad():
        torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["esc-nano", "esc-fp"])
def test_a_network_in_bfloat16(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, x = build(name, 2).eval(), torch.rand(1, 3, 40, 24)
    expected = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        outs = [network(x)]
    outs.append(network.bfloat16()(x.bfloat16()))
    monkeypatch.setattr(registration, "_enabled", False)
    outs.append(network(x.bfloat16()))
    for out in outs:
        assert (out - expected).square().mean().sqrt() < 10 ** (-45 / 20)


@torch.no_grad()
def test_chosen_for_inference_in_float32_and_bfloat16() -> None:
    x = torch.rand(1, 1, 1, 1)
    assert registration.is_supported(x)
    assert registration.is_supported(x.bfloat16(), None)
    assert not registration.is_supported(x.bfloat16(), x)
    assert not registration.is_supported(x.double())
    assert not registration.is_supported(x.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert registration.is_supported(x.bfloat16(), x)
    with torch.autocast("cpu", torch.float16):
        assert not registration.is_supported(x)
    with torch.enable_grad():
        assert registration.is_supported(x.clone().requires_grad_())
        assert not registration.is_supported_for_inference(x.clone().requires_grad_())
