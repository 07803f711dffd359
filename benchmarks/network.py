"""A whole network against its published form: the same weights with naive attention, both in one run.

    python benchmarks/network.py [--network esc] [--scale 4] [--size 128] [--threads 1] [--rounds 7]

The two sides alternate; times are medians. Peak memory is that of a fresh process for each side, above what
it held before its first forward pass.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from convattn.layers import WindowAttention
from convattn.sr.networks import build

SIDES = ("naive", "ours")


def prepare(side: str, name: str, scale: int, size: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    network, x = build(name, scale).eval(), torch.rand(1, 3, size, size)
    for parameter in network.parameters():  # what starts at zero takes part as well
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    if side == "naive":
        for module in network.modules():
            if isinstance(module, WindowAttention):
                module.backend = "reference"
        return network, x
    return network.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)


def memory_of_this_process(entry: str) -> float:
    """MB, of Linux's VmRSS (now) or VmHWM (at most so far)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(entry)) / 1024


def peak_memory(side: str, arguments: argparse.Namespace) -> float:
    """MB that a forward pass takes in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", side]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="esc")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peak-of", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shape = (arguments.network, arguments.scale, arguments.size)

    if arguments.peak_of:
        network, x = prepare(arguments.peak_of, *shape)
        before = memory_of_this_process("VmRSS")
        network(x)
        network(x)
        print(memory_of_this_process("VmHWM") - before)
        return

    sides = {side: prepare(side, *shape) for side in SIDES}
    outputs = {side: network(x) for side, (network, x) in sides.items()}
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(arguments.rounds):
        for side, (network, x) in sides.items():
            start = time.perf_counter()
            network(x)
            times[side].append(time.perf_counter() - start)
    difference = (outputs["naive"] - outputs["ours"]).abs().max() / outputs["naive"].abs().max()
    seconds = {side: statistics.median(values) for side, values in times.items()}
    memory = {side: peak_memory(side, arguments) for side in SIDES}
    print("{} x{}, input of {} pixels a side, {} thread(s)".format(*shape, arguments.threads))
    for side in SIDES:
        spread = f"{min(times[side]):.2f}-{max(times[side]):.2f}"
        print(f"{side:6} {seconds[side]:7.2f} s ({spread})  {memory[side]:7.0f} MB")
    print(
        f"ratio  {seconds['naive'] / seconds['ours']:7.2f}            {memory['naive'] / memory['ours']:7.2f}"
    )
    print(f"largest difference relative to the largest output: {difference:.1e}")


if __name__ == "__main__":
    main()
