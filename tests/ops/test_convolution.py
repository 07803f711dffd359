"""A 1×1 convolution may write its result over a map that is not needed any more."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convattn.ops import convolution, cpu


@pytest.mark.skipif(not cpu.is_available(), reason="needs the compiled kernels")
@settings(max_examples=30)
@given(
    images=st.integers(1, 3),
    channels=st.integers(1, 40),
    split=st.floats(0, 1),
    height=st.integers(1, 9),
    width=st.integers(1, 70),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    autocast=st.booleans(),
)
def test_overwriting_a_map_gives_the_same(
    images: int, channels: int, split: float, height: int, width: int, dtype: torch.dtype, autocast: bool
) -> None:
    shape = (images, channels, height, width)
    joined, residual = (torch.randn(shape).to(dtype, memory_format=torch.channels_last) for _ in range(2))
    first = max(1, round(split * channels))
    weight, bias = torch.randn(channels, channels, 1, 1).to(dtype), torch.randn(channels).to(dtype)

    def run(joined: torch.Tensor, memory: torch.Tensor | None) -> torch.Tensor:
        x, other = joined[:, :first].clone(), joined[:, first:]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return convolution(x, weight, bias, other=other, residual=residual, memory=memory)

    expected = run(joined, None)
    assert torch.equal(run(joined, joined), expected)


def test_a_map_with_gradients_is_not_overwritten() -> None:
    x = torch.randn(1, 4, 5, 6, requires_grad=True)
    memory = x.detach().clone()
    convolution(x, torch.randn(4, 4, 1, 1), torch.randn(4), memory=memory).sum().backward()
    assert torch.equal(memory, x)
