"""The compiled kernels are exact for every instruction set and size."""

import pytest
import torch
from torch import nn

from convattn.ops import (
    conv_attention,
    convolution,
    predicted_conv_attention,
    window_attention,
    window_self_attention,
)
from convattn.ops.cpu.library import library

from .conftest import (
    assert_exact,
    assert_exact_in_both,
    conv_input,
    convolution_input,
    feed_forward_input,
    normalized_feed_forward,
    normalized_self_attention,
    plain_feed_forward,
    predicted_input,
    self_attention_input,
    whole_convolution,
    window_input,
)

pytestmark = pytest.mark.skipif(library is None, reason="the kernels are not built here")


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
