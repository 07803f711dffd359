"""Time window attention on a GPU: the backends take turns, forward alone and forward with backward.

    python benchmarks/window_attention_gpu.py [--size 288] [--dim 64] [--heads 4] [--window 32] [--rounds 30]

Times are medians, memory is the peak beyond the arguments. The map is channels-last, as a network's is.
"""

import argparse
import statistics
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from convattn.ops import window_attention

BACKENDS = ("triton", "flex", "sdpa")


def arguments_of(options: argparse.Namespace) -> list[Tensor]:
    shape = (1, 3 * options.dim, options.size, options.size)
    dtype = getattr(torch, options.dtype)
    qkv = torch.randn(shape, device="cuda", dtype=dtype).contiguous(memory_format=torch.channels_last)
    table = 0.1 * torch.randn(options.heads, (2 * options.window - 1) ** 2, device="cuda")
    return [x.requires_grad_() for x in (*qkv.chunk(3, 1), table)]


def passes(backend: str, args: list[Tensor]) -> dict[str, Callable[[], object]]:
    grad = torch.randn_like(args[0])

    @torch.no_grad()
    def forward() -> Tensor:
        return window_attention(*args, backend=backend)

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(window_attention(*args, backend=backend), args, grad)

    return {"forward": forward, "forward and backward": both}


def milliseconds(run: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def megabytes(run: Callable[[], object]) -> float:
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=288)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("There is no CUDA GPU here, so there is nothing to time: run this on a machine with one.")

    args = arguments_of(options)
    runs = {(name, what): run for name in BACKENDS for what, run in passes(name, args).items()}
    memory, times = {}, {side: [] for side in runs}
    for side, run in runs.items():
        for _ in range(3):  # compile and warm up
            run()
        memory[side] = megabytes(run)
    for _ in range(options.rounds):
        for side, run in runs.items():
            times[side].append(milliseconds(run))

    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(f"map {options.size}×{options.size}×{options.dim}, window {options.window}, {options.dtype}")
    for what in dict.fromkeys(what for _, what in runs):
        for name in BACKENDS:
            values, ours = times[name, what], times["triton", what]
            ratio = statistics.median(b / a for a, b in zip(ours, values, strict=True))
            spread = f"{min(values):.3f}–{max(values):.3f}"
            row = f"{what:20} {name:7} {statistics.median(values):8.3f} ms ({spread})"
            print(f"{row}  {memory[name, what]:8.1f} MB  {ratio:6.2f} times triton's time")


if __name__ == "__main__":
    main()
