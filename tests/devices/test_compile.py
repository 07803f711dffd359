"""A compiled network takes images of many sizes without being compiled for each."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from convattn.layers import BodyConfig
from convattn.models.esc import ESC
from convattn.models.esc_lte import ESCLTE
from convattn.models.features import SuperResolutionNetwork

SIZES = [(48, 37), (33, 64), (90, 51), (27, 80), (65, 65), (41, 72), (88, 30), (57, 39)]

# As many layers as it takes to repeat one: what is traced takes its time, and repeats add no sizes.
SMALL = BodyConfig(dim=16, large_kernel_dim=4, blocks=2, layers=1, window_size=8, heads=2, ffn_ratio=1.25)
FP = replace(SMALL, window_size=32, first_ffn_ratio=1.5, norm=True, factored=True)
NETWORKS: dict[str, Callable[[], SuperResolutionNetwork]] = {
    "esc": lambda: ESC(SMALL, scale=2),
    "esc-fp": lambda: ESC(FP, scale=2, image_skip="bicubic"),
    "esc-lte": lambda: ESCLTE(SMALL, hidden=64),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folder_of_sizes_compiles_at_most_three_times(name: str) -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    network = NETWORKS[name]().eval().requires_grad_(False)
    compiled = torch.compile(network, backend=counter)
    with torch.inference_mode():
        for height, width in SIZES:
            size = [] if network.scale else [(2 * height, 2 * width)]
            assert compiled(torch.rand(1, 3, height, width), *size).shape[2:] == (2 * height, 2 * width)
    assert counter.frame_count <= 3
