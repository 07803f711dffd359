"""A compiled network takes images of many sizes without being compiled for each."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from convattn.models.registry import build

SIZES = [(48, 37), (33, 64), (90, 51), (27, 80), (65, 65), (41, 72), (88, 30), (57, 39)]


@pytest.mark.parametrize("name", ["esc-nano", "esc-fp", "esc-nano-lte"])
def test_a_folder_of_sizes_compiles_at_most_three_times(name: str) -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    network = build(name, None if name.endswith("lte") else 2).eval().requires_grad_(False)
    compiled = torch.compile(network, backend=counter)
    with torch.inference_mode():
        for height, width in SIZES:
            size = [] if network.scale else [(2 * height, 2 * width)]
            assert compiled(torch.rand(1, 3, height, width), *size).shape[2:] == (2 * height, 2 * width)
    assert counter.frame_count <= 3
