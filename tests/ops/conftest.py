"""Operators as functions of tensors alone, random input for each, and every instruction set."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from convattn.layers import mean_over_symmetries
from convattn.ops import (
    FeedForwardWeights,
    convolution,
    feed_forward,
    window_self_attention,
)
from convattn.ops.cpu.library import library


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


def self_attention_input(
    images: int, heads: int, depth: int, height: int, width: int, window: int
) -> list[Tensor]:
    *_, table = window_input(images, heads, depth, height, width, window)
    channels = heads * depth
    x = torch.randn(images, channels, height, width).to(memory_format=torch.channels_last)
    project = nn.Conv2d(channels, 3 * channels, 1)
    norm = torch.randn(2, channels)
    return [x, 2 * project.weight.detach(), project.bias.detach(), table, *norm]


def conv_input(
    images: int, channels: int, height: int, width: int, *, size: int = 13, dynamic_size: int = 3
) -> list[Tensor]:
    x = torch.randn(images, channels + 3, height, width).to(memory_format=torch.channels_last)
    large_kernel = mean_over_symmetries(torch.randn(channels, channels, size, size)) / size
    return [x[:, :channels], large_kernel, torch.randn(images, channels, dynamic_size, dynamic_size)]


def predicted_input(
    images: int, channels: int, height: int, width: int, *, hidden: int = 7, dynamic_size: int = 3
) -> list[Tensor]:
    x, large_kernel, _ = conv_input(images, channels, height, width)
    layers = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels * dynamic_size**2, 1)
    weights = [tensor.detach() for layer in layers for tensor in (3 * layer.weight, layer.bias)]
    return [x + torch.randn(images, channels, 1, 1), large_kernel, *weights]


def convolution_input(
    images: int, channels: int, others: int, height: int, width: int, outs: int, size: int
) -> list[Tensor]:
    x = torch.randn(images, channels + others + outs, height, width).to(memory_format=torch.channels_last)
    part = nn.Conv2d(channels + others, outs, size)
    norm = torch.randn(2, channels)
    return [*x.split((channels, others, outs), 1), part.weight.detach(), part.bias.detach(), *norm]


def feed_forward_input(images: int, channels: int, height: int, width: int, *, hidden: int) -> list[Tensor]:
    x = torch.randn(images, channels, height, width).to(memory_format=torch.channels_last)
    parts = [
        nn.Conv2d(channels, hidden, 1),
        nn.Conv2d(hidden, hidden, 3, groups=hidden),
        nn.Conv2d(hidden, channels, 1),
    ]
    norm = torch.randn(2, channels)
    return [x, *(tensor.detach() for part in parts for tensor in (3 * part.weight, part.bias)), *norm]


def normalized_self_attention(x: Tensor, *args: Tensor, backend: str | None) -> Tensor:
    *weights, norm_weight, norm_bias = args
    return window_self_attention(x, *weights, norm=(norm_weight, norm_bias, 1e-6), backend=backend)


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


def convolution_of_one_map(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, *norm: Tensor, backend: str | None
) -> Tensor:
    return convolution(x, weight, bias, residual=residual, norm=(*norm, 1e-6), backend=backend)


def normalized_feed_forward(x: Tensor, *args: Tensor, backend: str | None) -> Tensor:
    *weights, norm_weight, norm_bias = args
    norm = (norm_weight, norm_bias, 1e-6)
    return feed_forward(x, FeedForwardWeights(*weights), norm=norm, backend=backend)


def plain_feed_forward(x: Tensor, *weights: Tensor, backend: str | None) -> Tensor:
    return feed_forward(x, FeedForwardWeights(*weights), backend=backend)


def assert_exact(operator: Callable[..., Tensor], args: list[Tensor], tolerance: float = 1e-5) -> None:
    expected = operator(*(x.double() for x in args), backend="reference")
    out = operator(*args, backend="cpu")
    assert out.shape == expected.shape
    assert out.dtype == args[0].dtype
    assert (out - expected).abs().max() <= tolerance * expected.abs().max()


def assert_exact_in_both(operator: Callable[..., Tensor], args: list[Tensor]) -> None:
    assert_exact(operator, args)
    assert_exact(
        operator, [x.bfloat16() for x in args], tolerance=1e-2
    )  # 8 bits a number, and a few roundings
