"""The Triton backend of window_attention against its definition, on a GPU or in Triton's interpreter.

The interpreter has to be asked for before Triton is imported: test_triton.py runs this file so, in a process
of its own.
"""

from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from convattn.ops import window_attention
from convattn.ops.triton import operators

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def random_input(
    images: int, heads: int, depth: int, height: int, width: int, window: int, *, together: bool = True
) -> list[Tensor]:
    qkv = torch.randn(images, 3 * heads * depth, height, width, device=DEVICE)
    qkv = qkv.to(memory_format=torch.channels_last) if together else qkv
    return [*qkv.chunk(3, 1), torch.randn(heads, (2 * window - 1) ** 2, device=DEVICE)]


def results(args: list[Tensor], backend: str) -> list[Tensor]:
    """The result, and the gradients of every argument for a random gradient of the result."""
    args = [x.detach().requires_grad_() for x in args]
    out = window_attention(*args, backend=backend)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return [out, *torch.autograd.grad(out, args, grad)]


def assert_exact(args: list[Tensor], tolerance: float = 2e-6) -> None:
    ours = results(args, "triton")
    theirs = results([x.double() for x in args], "reference")
    scale = max(x.abs().max() for x in theirs[1:])  # a map of one pixel has gradients of zero
    for result, expected in zip(ours, theirs, strict=True):
        assert result.shape == expected.shape
        assert (result - expected).abs().max() <= tolerance * scale


@pytest.fixture(autouse=True)
def _bfloat16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter keeps bfloat16 as bits, and its products take them for integers."""

    def as_floats(x: TensorHandle) -> TensorHandle:
        return TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, d: Any, *options: Any) -> Any:
        a, b = (as_floats(x) if x.dtype.is_bf16() else x for x in (a, b))
        return multiply(self, a, b, d, *options)

    multiply = InterpreterBuilder.create_dot
    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


@pytest.mark.parametrize("together", [True, False], ids=["channels-last", "contiguous"])
@pytest.mark.parametrize(
    "sizes",
    [
        (2, 2, 16, 5, 6, 4),  # padded on both sides
        (1, 1, 8, 3, 5, 8),  # below a window: reflected back and forth
        (1, 1, 24, 1, 9, 5),  # tokens and channels that are no power of two
    ],
)
def test_definition(sizes: tuple[int, ...], together: bool) -> None:
    assert_exact(random_input(*sizes, together=together))


TOLERANCES = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}


def sizes_around(window: int) -> st.SearchStrategy[tuple[int, int, int]]:
    """Height, width and window; the interpreter takes its time for every window."""
    return st.tuples(st.integers(1, window + 3), st.integers(1, window + 3), st.just(window))


@settings(max_examples=4)
@given(
    heads=st.integers(1, 2),
    depth=st.sampled_from([4, 8, 16, 24]),
    sizes=st.integers(1, 6).flatmap(sizes_around),
    dtype=st.sampled_from(list(TOLERANCES)),
)
def test_any_size(heads: int, depth: int, sizes: tuple[int, int, int], dtype: torch.dtype) -> None:
    *qkv, table = random_input(1, heads, depth, *sizes)
    assert_exact([*(x.to(dtype) for x in qkv), table], TOLERANCES[dtype])


def test_window_of_many_tiles() -> None:
    args = random_input(1, 1, 16, 3, 33, 32)
    ours, theirs = (window_attention(*args, backend=backend) for backend in ("triton", "reference"))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    q, k, v, table = random_input(1, 2, 16, 5, 9, 6)
    args = [q.to(dtype), k.to(dtype), v.to(dtype), table]
    assert_exact(args, TOLERANCES[dtype])
    assert [x.dtype for x in results(args, "triton")] == [dtype] * 4 + [torch.float32]


def test_arguments_of_any_strides() -> None:
    q, k, v, table = random_input(1, 2, 16, 4, 4, 4)
    assert_exact([q, k.contiguous(), v.mT, table.expand(3, -1, -1)[1]])


def test_known_to_torch() -> None:
    args = [x.requires_grad_() for x in random_input(1, 1, 16, 3, 5, 4)]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operators._forward, args, test_utils=tests)

    def function(*args: Tensor, backend: str = "triton") -> Tensor:
        return window_attention(*args, backend=backend).sin().sum()

    ours = torch.autograd.grad(torch.compile(function, backend="aot_eager", fullgraph=True)(*args), args)
    theirs = torch.autograd.grad(function(*args, backend="reference"), args)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
