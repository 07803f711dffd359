"""A whole network in several forms, with the same weights, taking turns in one run.

    python benchmarks/network.py [--sides ours bf16 naive] [--network esc] [--size 128] [--rounds 5]

Sides:
    ours            as users run it, in float32
    bf16            the same under autocast to bfloat16
    naive           torch's operations only, attention by its definition (the published form)
    flex            torch's operations only, attention by compiled flex attention (the reference's default)
    compile         torch's operations only, the whole network compiled by torch
    openvino        converted to OpenVINO, float32
    openvino-bf16   converted to OpenVINO, bfloat16

Times are medians, on one thread of the processor's time, which a busy machine disturbs less than the wall's;
ratios are medians over the rounds. Peak memory is that of a fresh process for each side, above what it held
before its first forward pass, with whatever is compiled. flex and compile need a C++ compiler and minutes.
"""

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from convattn.layers import WindowAttention
from convattn.ops import window_attention
from convattn.ops.native import operators
from convattn.sr.networks import build

Run = Callable[[], Tensor]


@contextmanager
def without_kernels() -> Iterator[None]:
    library, operators.library = operators.library, None
    try:
        yield
    finally:
        operators.library = library


def ours(network: nn.Module, x: Tensor, autocast: bool = False) -> Run:
    network = copy.deepcopy(network).to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)

    def run() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return network(x)

    return run


def of_torch(network: nn.Module, x: Tensor, backend: str | None = None, compiled: bool = False) -> Run:
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, WindowAttention):
            module.backend = backend
    if compiled:
        network.compile(dynamic=False)

    def run() -> Tensor:
        with without_kernels():
            return network(x)

    return run


def flex(network: nn.Module, x: Tensor) -> Run:
    module = sys.modules[window_attention.__module__]
    module.BACKENDS["flex"] = module._by_windows(module._compiled_flex())
    return of_torch(network, x, backend="flex")


def openvino(network: nn.Module, x: Tensor, precision: str = "f32") -> Run:
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": precision}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        converted = openvino.convert_model(network, example_input=x)
    model = core.compile_model(converted, "CPU", options)
    return lambda: torch.from_numpy(model(x.numpy())[0])


SIDES: dict[str, Callable[[nn.Module, Tensor], Run]] = {
    "ours": ours,
    "bf16": lambda network, x: ours(network, x, autocast=True),
    "naive": lambda network, x: of_torch(network, x, "reference"),
    "flex": flex,
    "compile": lambda network, x: of_torch(network, x, compiled=True),
    "openvino": openvino,
    "openvino-bf16": lambda network, x: openvino(network, x, "bf16"),
}


def network_and_picture(arguments: argparse.Namespace) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    network = build(arguments.network, arguments.scale).eval()
    for parameter in network.parameters():  # what starts at zero takes part as well
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    return network, torch.rand(1, 3, arguments.size, arguments.size)


def memory_of_this_process(entry: str) -> float:
    """MB, of Linux's VmRSS (now) or VmHWM (at most so far)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(entry)) / 1024


def peak_memory(side: str) -> float:
    """MB that a forward pass takes in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", side]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def psnr(out: Tensor, expected: Tensor) -> float:
    """Decibels, of results as wide as the expected one's range."""
    peak = expected.max() - expected.min()
    return float(20 * torch.log10(peak / (out - expected).square().mean().sqrt()))


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["ours", "bf16", "naive"])
    parser.add_argument("--network", default="esc")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak-of", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    network, x = network_and_picture(arguments)

    if arguments.peak_of:
        before = memory_of_this_process("VmRSS")
        run = SIDES[arguments.peak_of](network, x)
        for _ in range(2):
            run()
        print(memory_of_this_process("VmHWM") - before)
        return

    runs = {side: SIDES[side](network, x) for side in arguments.sides}
    outputs = {side: run() for side, run in runs.items()}
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    times: dict[str, list[float]] = {side: [] for side in runs}
    for _ in range(arguments.rounds):
        for side, run in runs.items():
            start = clock()
            run()
            times[side].append(clock() - start)
    first = arguments.sides[0]
    print(f"{arguments.network} ×{arguments.scale}, {arguments.size}×{arguments.size}, ", end="")
    print(f"{arguments.threads} thread(s), against {first}:")
    for side, seconds in times.items():
        ratio = statistics.median(b / a for a, b in zip(times[first], seconds, strict=True))
        spread = f"{min(seconds):.3f}-{max(seconds):.3f}"
        print(
            f"{side:14} {statistics.median(seconds):7.3f} s ({spread}) {ratio:6.2f} times  "
            f"{peak_memory(side):6.0f} MB  PSNR {psnr(outputs[side], outputs[first]):6.1f} dB"
        )


if __name__ == "__main__":
    main()
