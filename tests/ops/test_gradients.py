"""Gradients by compiled kernels against float64 references."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from convattn.layers import mean_over_symmetries
from convattn.models.registry import build
from convattn.ops import FeedForwardWeights, conv_attention, convolution, feed_forward, window_self_attention
from convattn.ops.cpu import disabled
from convattn.ops.cpu.library import library

pytestmark = pytest.mark.skipif(library is None, reason="the kernels are not built here")

Operator = Callable[..., Tensor]
Case = tuple[Operator, list[Tensor]]


def feature_map(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, dtype=dtype).to(memory_format=torch.channels_last)


def norm_of(args: list[Tensor]) -> tuple[Tensor, Tensor, float] | None:
    return (args[0], args[1], 1e-6) if args else None


def by_feed_forward(x: Tensor, *args: Tensor, backend: str) -> Tensor:
    return feed_forward(x, FeedForwardWeights(*args[:6]), norm=norm_of(list(args[6:])), backend=backend)


def by_convolution(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor, *norm: Tensor, backend: str
) -> Tensor:
    return convolution(x, weight, bias, residual=residual, norm=norm_of(list(norm)), backend=backend)


def by_joined(x: Tensor, weight: Tensor, bias: Tensor, other: Tensor, *norm: Tensor, backend: str) -> Tensor:
    return convolution(x, weight, bias, other=other, norm=norm_of(list(norm)), backend=backend)


def by_conv_attention(x: Tensor, kernel: Tensor, dynamic: Tensor, *, backend: str) -> Tensor:
    return conv_attention(x, mean_over_symmetries(kernel), dynamic, symmetric=True, backend=backend)


def by_self_attention(
    x: Tensor, weight: Tensor, bias: Tensor, table: Tensor, *norm: Tensor, backend: str
) -> Tensor:
    return window_self_attention(x, weight, bias, table, norm=norm_of(list(norm)), backend=backend)


def norm_args(draw: st.DrawFn, channels: int) -> list[Tensor]:
    """Over few channels a variance may be close to zero, and roundings grow without bound."""
    return [torch.randn(channels), torch.randn(channels)] if channels >= 8 and draw(st.booleans()) else []


JOINED = {"1×1": 1, "joined 3×3": 3}
"""Kinds of convolutions of two maps, and the sides of their kernels."""


@st.composite
def cases(draw: st.DrawFn, kind: str) -> Case:
    """An operator and random arguments of random shapes."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    images, channels = draw(st.integers(1, 3)), draw(st.integers(1, 40))
    size = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    outs = draw(st.integers(1, 40))
    norm = norm_args(draw, channels)
    x = feature_map(images, channels, *size)
    if kind == "feed_forward":
        weights = [
            torch.randn(outs, channels, 1, 1) / channels**0.5,
            torch.randn(outs),
            torch.randn(outs, 1, 3, 3) / 3,
            torch.randn(outs),
            torch.randn(channels, outs, 1, 1) / outs**0.5,
            torch.randn(channels),
        ]
        return by_feed_forward, [x, *weights, *norm]
    if kind == "conv_attention":
        kernel = draw(st.sampled_from([1, 3, 7, 13]))
        small = draw(st.sampled_from([1, 3, 5]))
        large = torch.randn(channels, channels, kernel, kernel) / kernel / channels**0.5
        return by_conv_attention, [x, large, torch.randn(images, channels, small, small)]
    if kind == "self_attention":
        heads, window = draw(st.integers(1, 3)), draw(st.integers(1, 18))
        depth = draw(st.integers(2, 20))
        channels = heads * depth
        norm = norm_args(draw, channels)
        x = feature_map(images, channels, *size)
        weight = torch.randn(3 * channels, channels, 1, 1) / channels**0.5
        table = torch.randn(heads, (2 * window - 1) ** 2)
        return by_self_attention, [x, weight, torch.randn(3 * channels), table, *norm]
    side = JOINED.get(kind) or draw(st.sampled_from([1, 3]))
    if kind in JOINED:
        others = draw(st.integers(1, 20))
        weight = torch.randn(outs, channels + others, side, side) / side / channels**0.5
        return by_joined, [x, weight, torch.randn(outs), feature_map(images, others, *size), *norm]
    weight = torch.randn(outs, channels, side, side) / side / channels**0.5
    return by_convolution, [x, weight, torch.randn(outs), feature_map(images, outs, *size), *norm]


KINDS = ["feed_forward", "conv_attention", "self_attention", "1×1", "joined 3×3", "convolution"]


def gradients(operator: Operator, args: list[Tensor], backend: str) -> list[Tensor]:
    args = [x.detach().requires_grad_() for x in args]
    out = operator(*args, backend=backend)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return list(torch.autograd.grad((out * weight).sum(), args))


def assert_equal(operator: Operator, args: list[Tensor], tolerance: float = 1e-5) -> None:
    ours = gradients(operator, args, "cpu")
    theirs = gradients(operator, [x.double() for x in args], "reference")
    torchs = gradients(operator, args, "reference")
    # Some gradients are sums that cancel, down to zero: those are as exact as their terms, or as torch's.
    terms = max(expected.norm().item() for expected in theirs) / 30
    for result, expected, other in zip(ours, theirs, torchs, strict=True):
        assert result.shape == expected.shape
        allowed = tolerance * (expected.norm() + terms)
        assert (result - expected).norm() <= max(allowed, 3 * (other - expected).norm())


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_gradients_of_any_shape(kind: str, data: st.DataObject) -> None:
    assert_equal(*data.draw(cases(kind)))


def example(kind: str, *, small: bool = False) -> Case:
    """One case of a kind, with a norm and sizes that no vector and no window divides."""
    channels, outs, size = (3, 2, (3, 4)) if small else (20, 27, (19, 21))
    x, norm = feature_map(2, channels, *size), [torch.randn(channels), torch.randn(channels)]
    if kind == "feed_forward":
        shapes = [
            (outs, channels, 1, 1),
            (outs,),
            (outs, 1, 3, 3),
            (outs,),
            (channels, outs, 1, 1),
            (channels,),
        ]
        return by_feed_forward, [x, *(torch.randn(shape) / 3 for shape in shapes), *norm]
    if kind == "conv_attention":
        large = torch.randn(channels, channels, 5, 5) / 9
        return by_conv_attention, [x, large, torch.randn(2, channels, 3, 3)]
    if kind == "self_attention":
        heads, window = (1, 2) if small else (4, 8)
        weight, bias = torch.randn(3 * channels, channels, 1, 1) / 4, torch.randn(3 * channels)
        return by_self_attention, [x, weight, bias, torch.randn(heads, (2 * window - 1) ** 2), *norm]
    if side := JOINED.get(kind):
        weight = torch.randn(outs, channels + 5, side, side) / 4 / side
        return by_joined, [x, weight, torch.randn(outs), feature_map(2, 5, *size), *norm]
    weight = torch.randn(outs, channels, 3, 3) / 9
    return by_convolution, [x, weight, torch.randn(outs), feature_map(2, outs, *size), *norm]


OPERATIONS = {
    "feed_forward": "feed_forward",
    "conv_attention": "conv_attention",
    "self_attention": "window_self_attention",
    "1×1": "convolution",
    "joined 3×3": "convolution",
    "convolution": "convolution",
}


def arguments(kind: str) -> tuple[list[Tensor | float | bool | None], Tensor]:
    """The arguments of the operation of a kind, which need gradients, and a gradient of its result."""
    operator, tensors = example(kind, small=True)
    made = torch.randn_like(operator(*tensors, backend="cpu"))
    x, *others = (tensor.requires_grad_() for tensor in tensors)
    if kind == "conv_attention":
        kernel, dynamic = others
        return [x, mean_over_symmetries(kernel.detach()).requires_grad_(), dynamic, True], made
    if kind in JOINED:
        weight, bias, other, *norm = others
        return [x, weight, bias, other, None, *norm, 1e-6], made
    if kind == "convolution":
        weight, bias, residual, *norm = others
        return [x, weight, bias, None, residual, *norm, 1e-6], made
    return [x, *others, 1e-6], made


@pytest.mark.parametrize("kind", KINDS)
class TestEveryOperator:
    def test_exact_in_every_instruction_set(self, kind: str, instruction_set: str) -> None:
        operator, args = example(kind)
        assert_equal(operator, args)
        half = [x.bfloat16() for x in args]
        ours = gradients(operator, half, "cpu")
        theirs = gradients(operator, [x.double() for x in half], "reference")
        for result, expected in zip(ours, theirs, strict=True):
            assert result.dtype == torch.bfloat16
            assert (result - expected).norm() <= 2e-2 * expected.norm()

    def test_only_what_is_wanted(self, kind: str) -> None:
        operator, args = example(kind)
        whole = gradients(operator, args, "cpu")
        for which, expected in enumerate(whole):
            inputs = [x.detach().requires_grad_(i == which) for i, x in enumerate(args)]
            out = operator(*inputs, backend="cpu")
            weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
            (out * weight).sum().backward()
            torch.testing.assert_close(inputs[which].grad, expected)
            assert all(x.grad is None for i, x in enumerate(inputs) if i != which)

    def test_gradients_of_any_strides(self, kind: str) -> None:
        operator, args = example(kind)
        inputs = [x.requires_grad_() for x in args]
        out = operator(*inputs, backend="cpu")
        one = torch.autograd.grad(out.sum(), inputs, retain_graph=True)  # one number for all
        other = torch.autograd.grad(out, inputs, torch.ones(out.shape))
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a, b)

    def test_threads_change_nothing(self, kind: str) -> None:
        operator, args = example(kind)
        threads, found = torch.get_num_threads(), []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append(gradients(operator, args, "cpu"))
        torch.set_num_threads(threads)
        for others in found[1:]:
            assert all(map(torch.equal, found[0], others))

    def test_second_derivatives(self, kind: str) -> None:
        operator, args = example(kind, small=True)

        def second(args: list[Tensor], backend: str) -> tuple[Tensor, ...]:
            inputs = [x.detach().requires_grad_() for x in args]
            first = torch.autograd.grad(
                operator(*inputs, backend=backend).square().sum(), inputs, create_graph=True
            )
            return torch.autograd.grad(sum(x.square().sum() for x in first), inputs)

        ours, theirs = second(args, "cpu"), second([x.double() for x in args], "reference")
        scale = max(x.abs().max().item() for x in theirs)
        for result, expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(result.double(), expected, rtol=1e-3, atol=1e-5 * scale)

    def test_compiles_into_one_graph(self, kind: str) -> None:
        operator, args = example(kind)
        compiled = torch.compile(operator, backend="aot_eager", fullgraph=True)
        ours, theirs = gradients(compiled, args, "cpu"), gradients(operator, args, "cpu")
        for result, expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(result, expected)

    @pytest.mark.filterwarnings("ignore:.*double precision floating point:UserWarning")
    def test_gradients_are_those_of_differences(self, kind: str) -> None:
        torch.manual_seed(0)
        operator, args = example(kind, small=True)
        inputs = [x.requires_grad_() for x in args]
        assert torch.autograd.gradcheck(
            lambda *x: operator(*x, backend="cpu"), inputs, eps=1e-2, atol=5e-2, rtol=1e-2
        )

    def test_keeps_torch_rules_backward(self, kind: str) -> None:
        torch.manual_seed(0)
        args, made = arguments(kind)
        wanted = [True] * sum(isinstance(x, Tensor) for x in args)
        operation = getattr(torch.ops.convattn, f"{OPERATIONS[kind]}_backward").default
        # Not traced: second derivatives are torch's own, with groups that depend on the batch.
        rules = "test_schema", "test_autograd_registration", "test_faketensor"
        torch.library.opcheck(operation, [*args, made, wanted], test_utils=rules)


def test_sums_that_cancel_keep_their_digits_in_half_precision() -> None:
    """Gradients of a norm's bias, summed in bfloat16, were several times their own size away."""
    torch.manual_seed(0)
    channels, others = 30, 11
    tensors = [
        feature_map(3, channels, 14, 34),
        torch.randn(1, channels + others, 3, 3) / 19,
        torch.randn(1),
        feature_map(3, others, 14, 34),
        torch.randn(channels),
        torch.randn(channels),
    ]
    args = [x.bfloat16().requires_grad_() for x in tensors]
    slope = torch.linspace(-1, 1, 3 * 14 * 34).view(3, 1, 14, 34).bfloat16()

    def of_bias(args: list[Tensor], backend: str) -> Tensor:
        out = by_joined(*args, backend=backend)
        return torch.autograd.grad(out, args[-1], slope.to(out.dtype))[0]

    expected = of_bias([x.detach().double().requires_grad_() for x in args], "reference")
    assert (of_bias(args, "cpu") - expected).norm() <= 4e-2 * expected.norm()


def test_a_kernel_that_is_not_said_to_be_symmetric_keeps_every_tap() -> None:
    args = [feature_map(1, 4, 9, 9), mean_over_symmetries(torch.randn(4, 4, 5, 5)), torch.randn(1, 4, 3, 3)]
    ours = gradients(conv_attention, args, "cpu")
    theirs = gradients(conv_attention, [x.double() for x in args], "reference")
    for result, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(result.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("learns", [True, False], ids=["a learned kernel", "a fixed kernel"])
def test_a_kernel_without_symmetries_has_the_gradient_of_the_equation(learns: bool) -> None:
    tensors = [feature_map(2, 4, 9, 11), torch.randn(4, 4, 5, 5), torch.randn(2, 4, 3, 3)]

    def found(dtype: torch.dtype, backend: str) -> tuple[Tensor, ...]:
        x, kernel, dynamic = (tensor.to(dtype).requires_grad_() for tensor in tensors)
        kernel.requires_grad_(learns)
        out = conv_attention(x, kernel, dynamic, symmetric=learns, backend=backend)
        return torch.autograd.grad(out.square().sum(), [y for y in (x, kernel, dynamic) if y.requires_grad])

    ours, theirs = found(torch.float32, "cpu"), found(torch.float64, "reference")
    for result, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(result.double(), expected, rtol=1e-4, atol=1e-3)


def test_a_network_learns_the_same_with_and_without() -> None:
    network, x = build("esc-nano", 2), torch.rand(2, 3, 20, 24)
    parameters = dict(network.named_parameters())

    def found() -> tuple[Tensor, ...]:
        return torch.autograd.grad(network(x).square().mean(), list(parameters.values()))

    ours = found()
    with disabled():
        theirs = found()
    for name, result, expected in zip(parameters, ours, theirs, strict=True):
        assert (result - expected).norm() <= 1e-3 * expected.norm() + 1e-6, name
