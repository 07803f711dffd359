"""window_attention against its definition: values, gradients, sizes, and a bias that is always live."""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from convattn.layers import WindowAttention
from convattn.ops import window_attention
from convattn.ops.relative_bias import expand_bias
from convattn.ops.window_attention import BACKENDS

BACKENDS_WITH_GRADIENTS = [name for name in BACKENDS if name not in ("flex", "cpu")]  # on a CPU


@pytest.fixture(autouse=True)
def uncompiled() -> Iterator[None]:
    """Flex attention without the compiler, which takes half a minute on a CPU."""
    with torch.compiler.set_stance("force_eager"):
        yield


def by_loops(q: Tensor, k: Tensor, v: Tensor, table: Tensor, window: int) -> Tensor:
    """The definition, query pixel by query pixel, for maps of whole windows."""
    heads, out = len(table), torch.zeros_like(v)
    depth = q.shape[1] // heads
    pixels = [(y, x) for y in range(window) for x in range(window)]
    for n in range(len(q)):
        for head in range(heads):
            c = slice(head * depth, (head + 1) * depth)
            for top in range(0, q.shape[2], window):
                for left in range(0, q.shape[3], window):
                    for y, x in pixels:
                        query = q[n, c, top + y, left + x]
                        scores = torch.stack(
                            [
                                query @ k[n, c, top + b, left + a] / math.sqrt(depth)
                                + table[head, (b - y + window - 1) * (2 * window - 1) + a - x + window - 1]
                                for b, a in pixels
                            ]
                        )
                        values = torch.stack([v[n, c, top + b, left + a] for b, a in pixels])
                        out[n, c, top + y, left + x] = scores.softmax(0) @ values
    return out


def random_input(
    images: int,
    heads: int,
    depth: int,
    height: int,
    width: int,
    window: int,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    q, k, v = torch.randn(3, images, heads * depth, height, width, dtype=dtype)
    return q, k, v, torch.randn(heads, (2 * window - 1) ** 2, dtype=dtype)


@pytest.mark.parametrize("backend", [*BACKENDS, None])
def test_backends_agree_with_loops(backend: str | None) -> None:
    q, k, v, table = random_input(2, 2, 16, 6, 3, window=3, dtype=torch.float32)
    torch.testing.assert_close(
        window_attention(q, k, v, table, backend=backend), by_loops(q, k, v, table, 3), rtol=1e-4, atol=1e-5
    )


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 8),
)
def test_any_size(images: int, heads: int, depth: int, height: int, width: int, window: int) -> None:
    args = random_input(images, heads, depth, height, width, window)
    out = window_attention(*args)
    assert out.shape == args[0].shape
    torch.testing.assert_close(out, window_attention(*args, backend="reference"))


@pytest.mark.parametrize("size", [(17, 25), (31, 32), (40, 20)])
def test_padding_is_the_published_reflection_where_that_is_defined(size: tuple[int, int]) -> None:
    q, k, v, table = random_input(1, 2, 4, *size, window=16)
    padding = (0, -size[1] % 16, 0, -size[0] % 16)
    padded = (F.pad(x, padding, mode="reflect") for x in (q, k, v))
    expected = window_attention(*padded, table, backend="reference")  # type: ignore[misc]
    torch.testing.assert_close(window_attention(q, k, v, table), expected[:, :, : size[0], : size[1]])


@pytest.mark.parametrize("backend", [*BACKENDS_WITH_GRADIENTS, None])
def test_gradients(backend: str | None) -> None:
    args = [x.requires_grad_() for x in random_input(2, 2, 2, 3, 5, window=2)]
    assert torch.autograd.gradcheck(lambda *a: window_attention(*a, backend=backend), args)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="flex attention learns on a GPU only")
def test_flex_gradients_on_a_gpu() -> None:
    args = [x.cuda().requires_grad_() for x in random_input(2, 2, 16, 32, 40, window=16, dtype=torch.float32)]
    outs = [window_attention(*args, backend=name) for name in ("flex", "reference")]
    grads = [torch.autograd.grad(out.square().sum(), args) for out in outs]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
@pytest.mark.parametrize("backend", [*BACKENDS, None])
def test_half_precision(backend: str | None, dtype: torch.dtype, tolerance: float) -> None:
    args = random_input(1, 2, 16, 8, 8, window=8)
    expected = window_attention(*args, backend="reference")
    q, k, v = (x.to(dtype) for x in args[:3])
    out = window_attention(q, k, v, args[3].float(), backend=backend)  # the table stays in float32
    assert out.dtype == dtype
    assert (out.double() - expected).norm() <= tolerance * expected.norm()


def test_expanded_bias_looks_every_offset_up() -> None:
    window, table = 3, torch.randn(2, 25)
    bias = expand_bias(table)
    for query in range(window**2):
        for key in range(window**2):
            row, column = key // window - query // window + 2, key % window - query % window + 2
            assert torch.equal(bias[:, query, key], table[:, row * 5 + column])


def _write_in_place(layer: WindowAttention, table: Tensor) -> WindowAttention:
    with torch.no_grad():
        layer.relative_position_bias.copy_(table)
    return layer


def _write_through_data(layer: WindowAttention, table: Tensor) -> WindowAttention:
    layer.relative_position_bias.data.copy_(table)  # leaves the version counter alone
    return layer


def _load(layer: WindowAttention, table: Tensor, *, assign: bool) -> WindowAttention:
    layer.load_state_dict(layer.state_dict() | {"relative_position_bias": table.clone()}, assign=assign)
    return layer


def _step(layer: WindowAttention, table: Tensor) -> WindowAttention:
    bias = layer.relative_position_bias
    bias.grad = bias.detach() - table
    torch.optim.SGD([bias], lr=1.0).step()
    return layer


@pytest.mark.parametrize("backend", [*BACKENDS, None])
@pytest.mark.parametrize(
    "change",
    [
        _write_in_place,
        _write_through_data,
        lambda layer, table: _load(layer, table, assign=False),
        lambda layer, table: _load(layer, table, assign=True),
        lambda layer, table: _write_in_place(copy.deepcopy(layer), table),
        _step,
    ],
    ids=["in-place", "through-data", "load", "assigning-load", "deepcopy", "optimizer-step"],
)
@torch.no_grad()
def test_bias_is_live(change: Callable[..., Any], backend: str | None) -> None:
    layer = WindowAttention(32, 4, 2, backend=backend).eval()
    x, table = torch.randn(1, 32, 6, 7), torch.randn(2, 49)
    before = layer(x)  # anything kept is kept from here on
    changed = change(layer, table)
    q, k, v = changed.qkv(x).chunk(3, 1)
    expected = changed.project(window_attention(q, k, v, table, backend="reference"))
    torch.testing.assert_close(changed(x), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, expected, atol=1e-3)


def test_bias_kept_in_inference_mode_serves_training_of_the_rest() -> None:
    layer = WindowAttention(16, 4, 1).requires_grad_(False)
    nn.init.normal_(layer.relative_position_bias)
    x = torch.randn(1, 16, 4, 4)
    with torch.inference_mode():
        layer(x)
    layer.qkv.requires_grad_(True)
    layer(x).sum().backward()
    assert layer.qkv.weight.grad is not None


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(1, 4, 5, 5), (1, 4, 5, 6), (1, 4, 5, 5), (1, 9)], "one shape"),
        ([(1, 4, 5, 5)] * 3 + [(1, 10)], "columns"),
        ([(1, 4, 5, 5)] * 3 + [(3, 9)], "3 heads"),
        ([(1, 4, 5, 5)] * 3 + [(9,)], "relative_position_bias"),
    ],
)
def test_wrong_shapes_are_named(shapes: list[tuple], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        window_attention(*map(torch.zeros, shapes))
