"""Time the compiled CPU kernels against torch's own operations, both sides taking turns in one run.

``python benchmarks/cpu_kernels.py [--rounds 9] [--threads 1] [--dtype bfloat16]`` prints medians in ms
and the median of the rounds' ratios. ``convattn bench`` times whole networks.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from convattn.bench.timing import ratio, time_in_turns
from convattn.layers import ConvFFN, LargeKernel
from convattn.ops import FeedForwardWeights, conv_attention, feed_forward, window_attention
from convattn.ops.cpu.library import library


def compare(name: str, rounds: int, sides: dict[str, Callable[[], object]]) -> None:
    """The first side against each other one."""
    # On one thread the processor's time, which a busy machine disturbs less than the wall's.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds = time_in_turns(sides, rounds, clock=clock)
    ours, *others = sides
    for other in others:
        columns = "   ".join(f"{side} {1000 * np.median(seconds[side]):8.2f}" for side in (ours, other))
        print(f"{name:34} {columns}   {ratio(seconds[other], seconds[ours]):5.2f} times")


def operators_of_esc(rounds: int, dtype: torch.dtype) -> None:
    """At 128×128 pixels, as in ESC."""
    maps = torch.randn(1, 192, 128, 128).to(dtype, memory_format=torch.channels_last)
    q, k, v = maps.chunk(3, 1)
    table = torch.randn(4, 63 * 63, dtype=dtype)
    compare(
        "window attention 32×32, 4 heads",
        rounds,
        {
            side: lambda side=side: window_attention(q, k, v, table, backend=side)
            for side in ("cpu", "sdpa", "reference")
        },
    )
    x, kernel, dynamic = maps[:, :16], LargeKernel(16)().to(dtype), torch.randn(1, 16, 3, 3, dtype=dtype)
    compare(
        "conv attention 13×13, 16 channels",
        rounds,
        {
            side: lambda side=side: conv_attention(x, kernel, dynamic, backend=side)
            for side in ("cpu", "grouped")
        },
    )
    x = maps[:, :64].contiguous(memory_format=torch.channels_last)
    parts = ConvFFN(64, 1.25).to(dtype).children()
    weights = FeedForwardWeights(*(tensor for part in parts for tensor in part.parameters()))
    compare(
        "feed-forward 64, ratio 1.25",
        rounds,
        {side: lambda side=side: feed_forward(x, weights, backend=side) for side in ("cpu", "reference")},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"instruction set: {library.convattn_instruction_set().decode()}, threads: {arguments.threads}")
    with torch.inference_mode():
        operators_of_esc(arguments.rounds, getattr(torch, arguments.dtype))
