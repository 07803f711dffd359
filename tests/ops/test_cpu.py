"""The compiled kernels: exact for every instruction set, layout and size, and known to torch."""

import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from convattn.layers import mean_over_symmetries
from convattn.models.registry import build
from convattn.ops import (
    FeedForwardWeights,
    conv_attention,
    convolution,
    feed_forward,
    predicted_conv_attention,
    window_attention,
    window_self_attention,
)
from convattn.ops.cpu import library as kernel_library
from convattn.ops.cpu import registration
from convattn.ops.cpu.library import _load, library

pytestmark = pytest.mark.skipif(library is None, reason="the kernels are not built here")


@pytest.fixture(params=["sse2", "avx2", "avx512", "avx512_bf16", "vector128"])
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    if not library.convattn_use_instruction_set(request.param.encode()):
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    library.convattn_use_instruction_set(None)


def window_input(
    images: int, heads: int, depth: int, height: int, width: int, window: int, *, scale: float = 1
) -> list[Tensor]:
    qkv = torch.randn(images, 3 * heads * depth, height, width).to(memory_format=torch.channels_last)
    return [*(qkv * scale).chunk(3, 1), torch.randn(heads, (2 * window - 1) ** 2)]


def conv_input(
    images: int, channels: int, height: int, width: int, *, size: int = 13, dynamic_size: int = 3
) -> list[Tensor]:
    x = torch.randn(images, channels + 3, height, width).to(memory_format=torch.channels_last)
    large_kernel = mean_over_symmetries(torch.randn(channels, channels, size, size)) / size
    return [x[:, :channels], large_kernel, torch.randn(images, channels, dynamic_size, dynamic_size)]


def feed_forward_input(images: int, channels: int, height: int, width: int, *, hidden: int) -> list[Tensor]:
    x = torch.randn(images, channels, height, width).to(memory_format=torch.channels_last)
    parts = [
        nn.Conv2d(channels, hidden, 1),
        nn.Conv2d(hidden, hidden, 3, groups=hidden),
        nn.Conv2d(hidden, channels, 1),
    ]
    norm = torch.randn(2, channels)
    return [x, *(tensor.detach() for part in parts for tensor in (3 * part.weight, part.bias)), *norm]


def normalized_feed_forward(x: Tensor, *args: Tensor, backend: str | None) -> Tensor:
    *weights, norm_weight, norm_bias = args
    norm = (norm_weight, norm_bias, 1e-6)
    return feed_forward(x, FeedForwardWeights(*weights), norm=norm, backend=backend)


def plain_feed_forward(x: Tensor, *weights: Tensor, backend: str | None) -> Tensor:
    return feed_forward(x, FeedForwardWeights(*weights), backend=backend)


def assert_exact(operator, args: list[Tensor], tolerance: float = 1e-5) -> None:
    expected = operator(*(x.double() for x in args), backend="reference")
    out = operator(*args, backend="cpu")
    assert out.shape == expected.shape
    assert out.dtype == args[0].dtype
    assert (out - expected).abs().max() <= tolerance * expected.abs().max()


def assert_exact_in_both(operator, args: list[Tensor]) -> None:
    assert_exact(operator, args)
    assert_exact(
        operator, [x.bfloat16() for x in args], tolerance=1e-2
    )  # 8 bits a number, and a few roundings


WINDOW_CASES = {
    "one window": (1, 1, 16, 32, 32, 32),
    "batch and padding": (2, 2, 16, 21, 35, 16),
    "window of no vector": (1, 3, 8, 20, 9, 7),
    "one and a half vectors": (1, 1, 16, 30, 20, 24),
    "deep heads": (1, 2, 40, 16, 16, 8),
    "shallow heads": (1, 4, 3, 9, 9, 5),
    "one pixel": (1, 1, 16, 1, 1, 8),
    "a line": (1, 1, 8, 1, 37, 12),
}


@pytest.mark.parametrize("case", WINDOW_CASES.values(), ids=WINDOW_CASES)
def test_window_attention_is_exact(case: tuple, instruction_set: str) -> None:
    assert_exact_in_both(window_attention, window_input(*case))


def self_attention_input(
    images: int, heads: int, depth: int, height: int, width: int, window: int
) -> list[Tensor]:
    *_, table = window_input(images, heads, depth, height, width, window)
    channels = heads * depth
    x = torch.randn(images, channels, height, width).to(memory_format=torch.channels_last)
    project = nn.Conv2d(channels, 3 * channels, 1)
    norm = torch.randn(2, channels)
    return [x, 2 * project.weight.detach(), project.bias.detach(), table, *norm]


def normalized_self_attention(x: Tensor, *args: Tensor, backend: str | None) -> Tensor:
    *weights, norm_weight, norm_bias = args
    return window_self_attention(x, *weights, norm=(norm_weight, norm_bias, 1e-6), backend=backend)


@pytest.mark.parametrize("case", WINDOW_CASES.values(), ids=WINDOW_CASES)
def test_window_self_attention_is_exact(case: tuple, instruction_set: str) -> None:
    args = self_attention_input(*case)
    assert_exact_in_both(normalized_self_attention, args)
    assert_exact(window_self_attention, args[:-2])


@pytest.mark.parametrize("window", [7, 16])
def test_large_scores_are_safe(window: int, instruction_set: str) -> None:
    q, k, v, table = window_input(1, 2, 16, 16, 16, window, scale=10)  # scores of hundreds
    assert_exact(window_attention, [q, k, v, table], tolerance=1e-4)
    assert_exact(window_attention, [q, k, v, table - 500], tolerance=1e-4)


def test_nan_is_not_hidden(instruction_set: str) -> None:
    q, k, v, table = window_input(1, 1, 16, 8, 16, 8)
    k[0, 3, 2, 2] = torch.nan
    out = window_attention(q, k, v, table, backend="cpu")
    assert out[..., :8].isnan().all()
    assert not out[..., 8:].isnan().any()


CONV_CASES = {
    "as published": (1, 16, 24, 40),
    "batch": (2, 16, 9, 70),
    "few channels": (1, 5, 20, 11),
    "many channels": (1, 48, 10, 12),
    "one pixel": (1, 16, 1, 1),
    "a line": (1, 8, 1, 30),
}


def predicted_input(
    images: int, channels: int, height: int, width: int, *, hidden: int = 7, dynamic_size: int = 3
) -> list[Tensor]:
    x, large_kernel, _ = conv_input(images, channels, height, width)
    layers = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels * dynamic_size**2, 1)
    weights = [tensor.detach() for layer in layers for tensor in (3 * layer.weight, layer.bias)]
    return [x + torch.randn(images, channels, 1, 1), large_kernel, *weights]


@pytest.mark.parametrize("case", CONV_CASES.values(), ids=CONV_CASES)
def test_predicted_conv_attention_is_exact(case: tuple, instruction_set: str) -> None:
    assert_exact_in_both(predicted_conv_attention, predicted_input(*case))


def test_predicted_conv_attention_of_other_sizes(instruction_set: str) -> None:
    args = predicted_input(1, 6, 14, 10, hidden=20, dynamic_size=5)
    assert_exact(predicted_conv_attention, args)
    args[1][2, 1, 0, 1] += 1  # a kernel that lacks a symmetry
    assert_exact(predicted_conv_attention, args)


@pytest.mark.parametrize("case", CONV_CASES.values(), ids=CONV_CASES)
def test_conv_attention_is_exact(case: tuple, instruction_set: str) -> None:
    assert_exact_in_both(conv_attention, conv_input(*case))


@pytest.mark.parametrize(("size", "dynamic_size"), [(1, 1), (1, 3), (3, 3), (7, 1), (9, 5)])
def test_conv_attention_of_any_kernel_size(size: int, dynamic_size: int, instruction_set: str) -> None:
    assert_exact(conv_attention, conv_input(1, 6, 14, 10, size=size, dynamic_size=dynamic_size))


@pytest.mark.parametrize("tap", [(0, 1), (3, 4), (12, 0)])
def test_a_kernel_that_lacks_a_symmetry_is_not_folded(tap: tuple[int, int]) -> None:
    x, large_kernel, dynamic_kernel = conv_input(1, 4, 15, 15)
    large_kernel[2, 1][tap] += 1
    assert_exact(conv_attention, [x, large_kernel, dynamic_kernel])


def whole_convolution(
    x: Tensor,
    other: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    *norm: Tensor,
    backend: str | None,
) -> Tensor:
    maps = dict(other=other if other.shape[1] else None, residual=residual)
    return convolution(x, weight, bias, **maps, norm=(*norm, 1e-6), backend=backend)


def convolution_input(
    images: int, channels: int, others: int, height: int, width: int, outs: int, size: int
) -> list[Tensor]:
    x = torch.randn(images, channels + others + outs, height, width).to(memory_format=torch.channels_last)
    part = nn.Conv2d(channels + others, outs, size)
    norm = torch.randn(2, channels)
    return [*x.split((channels, others, outs), 1), part.weight.detach(), part.bias.detach(), *norm]


def convolution_of_one_map(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, *norm: Tensor, backend: str | None
) -> Tensor:
    return convolution(x, weight, bias, residual=residual, norm=(*norm, 1e-6), backend=backend)


CONVOLUTION_CASES = {
    "3×3 as published": (1, 64, 0, 9, 70, 48, 3),
    "3×3, batch": (2, 5, 0, 8, 7, 3, 3),
    "3×3, one pixel": (1, 3, 0, 1, 1, 80, 3),
    "3×3, channels": (1, 8, 0, 261, 2, 5, 3),
    "3×3, a line": (1, 17, 0, 1, 130, 16, 3),
    "3×3, two maps": (1, 6, 4, 7, 9, 5, 3),
    "1×1 as published": (1, 16, 48, 9, 40, 64, 1),
    "1×1, batch": (2, 5, 0, 3, 70, 3, 1),
    "1×1, one pixel": (1, 3, 1, 1, 1, 80, 1),
}


@pytest.mark.parametrize("case", CONVOLUTION_CASES.values(), ids=CONVOLUTION_CASES)
def test_convolution_is_exact(case: tuple, instruction_set: str) -> None:
    assert_exact_in_both(whole_convolution, convolution_input(*case))


@pytest.mark.parametrize("size", [1, 3])
def test_convolution_alone(size: int, instruction_set: str) -> None:
    x, _, _, weight, bias, *_ = convolution_input(1, 9, 0, 8, 5, 4, size)
    assert_exact(convolution, [x, weight, bias])


def test_convolution_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 5, 5\)"):
        convolution(torch.rand(1, 3, 8, 8), torch.rand(2, 3, 5, 5), torch.rand(2))


FEED_FORWARD_CASES = {
    "as published": ((1, 64, 20, 40), 80),
    "batch and strips": ((2, 6, 35, 131), 7),
    "narrowing": ((1, 24, 5, 9), 10),
    "one pixel": ((1, 16, 1, 1), 20),
    "a line": ((1, 8, 1, 150), 16),
}


@pytest.mark.parametrize(("shape", "hidden"), FEED_FORWARD_CASES.values(), ids=FEED_FORWARD_CASES)
def test_feed_forward_is_exact(shape: tuple, hidden: int, instruction_set: str) -> None:
    args = feed_forward_input(*shape, hidden=hidden)
    assert_exact_in_both(normalized_feed_forward, args)
    assert_exact(plain_feed_forward, args[:-2])


def test_a_norm_of_few_channels_with_a_large_average(instruction_set: str) -> None:
    x = 30 + torch.rand(1, 3, 20, 20)
    norm = (torch.ones(3), torch.zeros(3), 1e-6)
    args = dict(weight=torch.eye(3)[..., None, None], bias=torch.zeros(3), norm=norm)
    out = convolution(x, **args, backend="cpu")
    torch.testing.assert_close(out, convolution(x, **args, backend="reference"), rtol=1e-3, atol=1e-3)


def test_gelu_is_torchs_everywhere(instruction_set: str) -> None:
    x = torch.cat((torch.linspace(-12, 12, 4001), torch.tensor([-1e30, -200, 200, 1e30])))
    one, zero = torch.ones(1, 1, 1, 1), torch.zeros(1)
    depthwise = zero.view(1, 1, 1, 1).expand(1, 1, 3, 3)
    out = plain_feed_forward(x.view(1, 1, 1, -1), one, zero, depthwise, zero, one, zero, backend="cpu")
    torch.testing.assert_close(out.flatten(), nn.functional.gelu(x), rtol=1e-6, atol=2e-6)


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
    def test_any_memory_format(self, operator, args: list[Tensor]) -> None:
        contiguous = [x.contiguous() for x in args]
        assert torch.equal(operator(*contiguous, backend="cpu"), operator(*args, backend="cpu"))
        mirrored = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in args]
        assert torch.equal(operator(*mirrored, backend="cpu"), operator(*args, backend="cpu"))

    def test_input_is_left_alone(self, operator, args: list[Tensor]) -> None:
        copies = [x.clone() for x in args]
        operator(*args, backend="cpu")
        assert all(map(torch.equal, args, copies))

    def test_threads_change_nothing(self, operator, args: list[Tensor]) -> None:
        threads, outs = torch.get_num_threads(), []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            outs.append(operator(*args, backend="cpu"))
        torch.set_num_threads(threads)
        assert torch.equal(outs[0], outs[1])
        assert torch.equal(outs[0], outs[2])

    def test_gradients_are_the_references(self, operator, args: list[Tensor]) -> None:
        inputs = [x.detach().requires_grad_() for x in args]
        outs = [operator(*inputs, backend=name) for name in ("cpu", "reference")]
        grads = [torch.autograd.grad(out.square().sum(), inputs) for out in outs]
        for ours, theirs in zip(*grads, strict=True):
            tolerance = 1e-4 * theirs.abs().max().item()  # float32 sums of thousands
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=tolerance)

    def test_compiles_into_one_graph(self, operator, args: list[Tensor]) -> None:
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


def test_says_so_where_it_was_not_built(tmp_path) -> None:
    with pytest.warns(RuntimeWarning, match="compiled kernels"):
        assert _load(tmp_path) is None


def test_works_without() -> None:
    args = conv_input(1, 4, 8, 8)
    with registration.disabled():
        assert not registration.is_available()
        assert not registration.is_supported(*args)
        assert_exact(conv_attention, args)
    assert registration.is_available()


def test_kernels_of_another_version_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_library, "_INTERFACE", -1)
    with pytest.warns(RuntimeWarning, match="rebuild"):
        assert _load(Path(kernel_library.__file__).parent) is None


def test_the_environment_chooses_the_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(kernel_library.__file__).parent
    first = b"sse2" if platform.machine() in ("x86_64", "AMD64") else b"vector128"
    monkeypatch.setenv("CONVATTN_INSTRUCTION_SET", first.decode())
    try:
        loaded = _load(folder)
        assert loaded is not None
        assert loaded.convattn_instruction_set() == first
    finally:
        library.convattn_use_instruction_set(None)
    monkeypatch.setenv("CONVATTN_INSTRUCTION_SET", "abacus")
    with pytest.warns(RuntimeWarning, match="CONVATTN_INSTRUCTION_SET=abacus"):
        assert _load(folder) is None


def test_inference_does_not_wait_for_torchs_compiler_to_be_imported() -> None:
    code = (
        "import sys, torch\n"
        "from convattn.layers import ConvAttention, LargeKernel\n"
        "with torch.inference_mode():\n"
        "    ConvAttention(32, 16)(torch.rand(1, 32, 9, 9), LargeKernel(16)())\n"
        "print('sympy' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
