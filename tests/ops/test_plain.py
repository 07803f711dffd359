"""Tensors that are more than numbers in CPU memory get torch's own operations."""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from convattn.models.registry import build
from convattn.ops.plain import are_plain

SIZE = (2, 3, 12, 20)


@pytest.fixture
def network() -> nn.Module:
    return build("esc-nano", 2).eval().requires_grad_(False)


def test_what_is_plain() -> None:
    x = torch.rand(2, 2)
    assert are_plain([x, nn.Parameter(x), x[:, 0], x.bfloat16()])
    assert not are_plain([x.to("meta")])
    assert not are_plain([x.to_sparse()])
    assert not are_plain([torch.complex(x, x).conj().imag])  # negated when it is read
    assert not are_plain([torch._efficientzerotensor((2, 2))])  # has no memory
    with forward_ad.dual_level():
        assert not are_plain([x])


def test_fake_tensors(network: nn.Module) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        out = network(mode.from_tensor(torch.rand(SIZE)))
        assert out.shape == (2, 3, 24, 40)
        assert type(out).__name__ == "FakeTensor"


def test_subclasses(network: nn.Module) -> None:
    class Named(Tensor):
        pass

    x = torch.rand(SIZE)
    out = network(x.as_subclass(Named))
    assert type(out) is Named
    torch.testing.assert_close(out.as_subclass(Tensor), network(x), rtol=1e-4, atol=1e-5)


def test_forward_mode(network: nn.Module) -> None:
    x, tangent = torch.rand(SIZE), torch.randn(SIZE)
    ours = torch.func.jvp(network, (x,), (tangent,))[1]
    network, x, tangent = network.double(), x.double(), tangent.double()
    step = 1e-5
    expected = (network(x + step * tangent) - network(x - step * tangent)) / (2 * step)
    assert (ours - expected).abs().max() <= 1e-3 * expected.abs().max()


def test_vmap_and_grad(network: nn.Module) -> None:
    x = torch.rand(SIZE)
    outs = torch.func.vmap(lambda image: network(image[None])[0])(x)
    torch.testing.assert_close(outs, network(x), rtol=1e-4, atol=1e-5)
    grads = torch.func.grad(lambda x: network(x).square().sum())(x)
    (expected,) = torch.autograd.grad(network(x.requires_grad_()).square().sum(), x)
    torch.testing.assert_close(grads, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_a_dispatch_mode_sees_torchs_operations(network: nn.Module) -> None:
    with FlopCounterMode(display=False) as counter:
        network(torch.rand(SIZE))
    assert counter.get_total_flops() > 0


def test_compiles_into_one_graph(network: nn.Module) -> None:
    x = torch.rand(SIZE)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), network(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strict", [True, False])
def test_exports_without_our_operations(network: nn.Module, strict: bool) -> None:
    x = torch.rand(SIZE)
    program = torch.export.export(network, (x,), strict=strict)
    assert not [node for node in program.graph.nodes if "convattn" in str(node.target)]
    torch.testing.assert_close(program.module()(x), network(x), rtol=1e-4, atol=1e-5)
