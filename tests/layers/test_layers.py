"""The layers against the formulas of the paper."""

import math

import pytest
import torch
import torch.nn.functional as F

from convattn.layers import (
    ConvAttention,
    ConvFFN,
    KernelPredictor,
    LargeKernel,
    LayerNorm2d,
    mean_over_symmetries,
)


def test_large_kernel_is_the_mean_of_its_eight_symmetries() -> None:
    kernel = torch.randn(3, 2, 13, 13, dtype=torch.float64)
    turned = [torch.rot90(kernel, turns, (2, 3)) for turns in range(4)]
    mean = sum(turned + [k.flip(3) for k in turned]) / 8
    torch.testing.assert_close(mean_over_symmetries(kernel), mean)


def test_symmetric_kernel_has_28_distinct_taps() -> None:
    assert (
        len(mean_over_symmetries(torch.randn(13, 13, dtype=torch.float64)).round(decimals=12).unique()) == 28
    )


def test_folding_the_mean_into_the_weight_changes_nothing() -> None:
    kernel = LargeKernel(4)
    folded = kernel().detach().clone()
    kernel.weight.data.copy_(folded)
    torch.testing.assert_close(kernel(), folded, rtol=0, atol=5e-7)


def test_large_kernel_starts_orthogonal() -> None:
    flat = LargeKernel(16).weight.detach().flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(16), atol=1e-5, rtol=0)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_layer_norm(memory_format: torch.memory_format) -> None:
    norm = LayerNorm2d(6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 6, 3, 5).contiguous(memory_format=memory_format)
    centerd = x - x.mean(1, keepdim=True)
    scaled = centerd / (centerd.square().mean(1, keepdim=True) + 1e-6).sqrt()
    expected = scaled * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected, rtol=1e-5, atol=1e-5)


def test_feed_forward() -> None:
    ffn, x = ConvFFN(4, 1.25), torch.randn(1, 4, 6, 6)
    assert ffn.expand.out_channels == 5
    hidden = F.gelu(ffn.expand(x))
    spread = F.conv2d(hidden, ffn.depthwise.weight, ffn.depthwise.bias, padding=1, groups=5)
    torch.testing.assert_close(ffn(x), ffn.project(F.gelu(spread) + hidden))


def test_conv_attention_starts_as_the_large_kernel_alone() -> None:
    layer, x = ConvAttention(6, 4), torch.randn(2, 6, 9, 9)
    kernel = LargeKernel(4)()
    attended = torch.cat((F.conv2d(x[:, :4], kernel, padding=6), x[:, 4:]), 1)
    torch.testing.assert_close(layer(x, kernel), layer.project(attended))


def test_kernel_is_predicted_from_the_average() -> None:
    predictor, x = KernelPredictor(4, 2), torch.randn(3, 4, 5, 6)
    average = x.mean((2, 3))
    hidden = F.gelu(F.linear(average, predictor.reduce.weight.flatten(1), predictor.reduce.bias))
    expected = F.linear(hidden, predictor.expand.weight.flatten(1), predictor.expand.bias)
    torch.testing.assert_close(predictor(x), expected.view(3, 4, 3, 3))


def test_average_of_a_large_bright_image_does_not_overflow_in_half_precision() -> None:
    predictor = KernelPredictor(4, 2).half()
    x = torch.full((1, 4, 512, 512), 100.0).half()  # sums to 2.6e7, far beyond 65504
    with torch.no_grad():
        kernel = predictor(x)
    assert torch.isfinite(kernel).all()
    assert math.isclose(
        kernel.float().sum().item(),
        predictor.float()(torch.full((1, 4, 1, 1), 100.0)).sum().item(),
        rel_tol=0.05,
        abs_tol=0.5,
    )
