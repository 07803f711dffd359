"""Time training steps with the compiled CPU kernels and with torch's own operations, in turns in one run.

``python benchmarks/training.py [--model esc-nano] [--scale 2] [--rounds 5] [--threads 1]`` prints the median
milliseconds of a step (forward, backward, AdamW; a batch of 8 patches of 48×48 pixels) in float32 and in
bfloat16 autocast, and how many times the steps a second the kernels reach of torch's best.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from convattn.bench.timing import ratio, time_in_turns
from convattn.models.registry import build
from convattn.ops import cpu
from convattn.ops.cpu.library import library


def step(model: str, scale: int, *, kernels: bool, half: bool) -> Callable[[], None]:
    """A training step of a network of its own."""
    torch.manual_seed(0)
    network = build(model, scale).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters())
    low, high = torch.rand(8, 3, 48, 48), torch.rand(8, 3, 48 * scale, 48 * scale)

    def learn() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = network(low)
        F.l1_loss(out.float(), high).backward()
        optimizer.step()
        optimizer.zero_grad()

    def without_kernels() -> None:
        with cpu.disabled():
            learn()

    return learn if kernels else without_kernels


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="esc-nano")
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sides = {
        f"{'kernels' if kernels else 'torch'}, {'bfloat16' if half else 'float32'}": step(
            arguments.model, arguments.scale, kernels=kernels, half=half
        )
        for kernels in (True, False)
        for half in (False, True)
    }
    # On one thread the processor's time, which a busy machine disturbs less than the wall's.
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    seconds = time_in_turns(sides, arguments.rounds, clock=clock)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name:20} {1000 * median:8.1f} ms")
    ours, theirs = (min(list(medians)[first : first + 2], key=medians.__getitem__) for first in (0, 2))
    instructions = library.convattn_instruction_set().decode()
    print(f"{arguments.model} ×{arguments.scale}, {instructions}, threads: {arguments.threads}")
    print(f"{ratio(seconds[theirs], seconds[ours]):.2f} times the steps a second ({ours}; {theirs})")
    print(f"{ratio(seconds['torch, float32'], seconds['kernels, float32']):.2f} times in float32")
