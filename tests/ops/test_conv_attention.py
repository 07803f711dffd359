"""conv_attention against its definition: values, gradients, sizes, types, export."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from convattn.ops import conv_attention
from convattn.ops.conv_attention import BACKENDS


def by_loops(x: Tensor, large_kernel: Tensor, dynamic_kernel: Tensor) -> Tensor:
    """The operator written out tap by tap."""
    out = torch.zeros_like(x)
    _, channels, height, width = x.shape
    dense = large_kernel.shape[1] > 1
    for n in range(len(x)):
        for c in range(channels):
            taps = [
                (o if dense else c, large_kernel[c, o if dense else 0])
                for o in range(channels if dense else 1)
            ]
            for source, kernel in [*taps, (c, dynamic_kernel[n, c])]:
                half = kernel.shape[-1] // 2
                for i in range(height):
                    for j in range(width):
                        for a in range(max(0, i - half), min(height, i + half + 1)):
                            for b in range(max(0, j - half), min(width, j + half + 1)):
                                out[n, c, i, j] += x[n, source, a, b] * kernel[a - i + half, b - j + half]
    return out


def random_input(
    images: int,
    channels: int,
    height: int,
    width: int,
    *,
    size: int = 13,
    dense: bool = True,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.randn(images, channels, height, width, dtype=dtype),
        torch.randn(channels, channels if dense else 1, size, size, dtype=dtype) / size,
        torch.randn(images, channels, 3, 3, dtype=dtype),
    )


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_agree_with_loops(backend: str, dense: bool) -> None:
    args = random_input(2, 3, 4, 6, size=5, dense=dense)
    torch.testing.assert_close(conv_attention(*args, backend=backend), by_loops(*args))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 20), st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_any_batch_channels_and_size(
    images: int, channels: int, height: int, width: int, dense: bool
) -> None:
    args = random_input(images, channels, height, width, dense=dense)
    expected = conv_attention(*args, backend="reference")
    for backend in set(BACKENDS) - {"reference"}:
        torch.testing.assert_close(conv_attention(*args, backend=backend), expected)
    torch.testing.assert_close(conv_attention(*args), expected)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("backend", [*BACKENDS, None])
def test_gradients(backend: str | None, dense: bool) -> None:
    args = [x.requires_grad_() for x in random_input(2, 2, 3, 4, size=5, dense=dense)]
    assert torch.autograd.gradcheck(lambda *a: conv_attention(*a, backend=backend), args)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)]
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_types_and_layouts(dtype: torch.dtype, tolerance: float, memory_format: torch.memory_format) -> None:
    args = random_input(2, 16, 20, 24)
    expected = conv_attention(*args)
    x, large_kernel, dynamic_kernel = (a.to(dtype) for a in args)
    with torch.no_grad():
        out = conv_attention(x.contiguous(memory_format=memory_format), large_kernel, dynamic_kernel)
    assert out.dtype == dtype
    assert (out.double() - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("backend", [*BACKENDS, None])
def test_input_is_left_alone(backend: str | None) -> None:
    args = random_input(1, 4, 9, 9, dtype=torch.float32)
    before = [a.clone() for a in args]
    with torch.inference_mode():
        conv_attention(*args, backend=backend)
    for now, then in zip(args, before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize(
    ("x", "large_kernel", "dynamic_kernel", "message"),
    [
        ((1, 4, 5, 5), (3, 3, 13, 13), (1, 4, 3, 3), "large_kernel"),
        ((2, 4, 5, 5), (4, 4, 13, 13), (1, 4, 3, 3), "dynamic_kernel"),
        ((1, 4, 5, 5), (4, 4, 4, 4), (1, 4, 3, 3), "odd side"),
        ((4, 5, 5), (4, 4, 3, 3), (1, 4, 3, 3), "four dimensions"),
    ],
)
def test_wrong_shapes_are_named(x: tuple, large_kernel: tuple, dynamic_kernel: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conv_attention(torch.zeros(x), torch.zeros(large_kernel), torch.zeros(dynamic_kernel))


def test_unknown_backend_names_the_known() -> None:
    with pytest.raises(ValueError, match="grouped"):
        conv_attention(*random_input(1, 1, 1, 1), backend="fast")
