"""The cost of a network: parameters, operations and latency."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from convattn.bench import timing

__all__ = ["Cost", "measure_costs"]


@dataclass(frozen=True)
class Cost:
    """The cost of a fused network on one image.

    Attributes:
        parameters: Number of parameters.
        gflops: Billions of floating-point operations, two per multiply-add; NaN where they cannot be counted.
        latency: Median time of a forward pass in milliseconds.
        latency_ratio: Median over the rounds of the time divided by the baseline's time in the same round.
        machine: The device it was timed on.
    """

    parameters: int
    gflops: float
    latency: float
    latency_ratio: float
    machine: str


def measure_costs(networks: Mapping[str, tuple[nn.Module, int]], rounds: int = 30) -> dict[str, Cost]:
    """Measure parameters, operations and latency of several networks.

    The networks take turns, one forward pass each per round, so that other load on the machine affects all of
    them alike. On a CPU they run on one thread, and what counts is the time that this thread computes.

    Args:
        networks: For each name a fused network in evaluation mode and the side of its square input in pixels;
            the first is the baseline.
        rounds: Number of timed forward passes of each network.
    """
    from ultralytics.utils.torch_utils import get_flops

    seconds = _alternate(networks, rounds)
    baseline = next(iter(seconds.values()))
    machine = _machine(next(iter(networks.values()))[0])
    return {
        name: Cost(
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            gflops=float(get_flops(network, side)) or float("nan"),
            latency=1e3 * float(np.median(seconds[name])),
            latency_ratio=timing.ratio(seconds[name], baseline),
            machine=machine,
        )
        for name, (network, side) in networks.items()
    }


def _machine(network: nn.Module) -> str:
    """Name the device that a network is on, with the instruction set of a CPU."""
    from ultralytics.utils.torch_utils import get_cpu_info

    device = next(network.parameters()).device
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return (
        f"{get_cpu_info()} ({torch.backends.cpu.get_cpu_capability()})"
        if device.type == "cpu"
        else str(device)
    )


@torch.inference_mode()
def _alternate(networks: Mapping[str, tuple[nn.Module, int]], rounds: int) -> dict[str, np.ndarray]:
    """Time each network's forward pass in each round, in seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        runs = {name: _forward(network, side) for name, (network, side) in networks.items()}
        return timing.time_in_turns(runs, rounds, warm_up=3, clock=_clock(networks))
    finally:
        torch.set_num_threads(threads)


def _clock(networks: Mapping[str, tuple[nn.Module, int]]) -> Callable[[], float]:
    """Choose the clock that other programs on the machine disturb least."""
    on_cpu = all(next(network.parameters()).device.type == "cpu" for network, _ in networks.values())
    fine = time.get_clock_info("thread_time").resolution < 1e-5  # on Windows it is not
    return time.thread_time if on_cpu and fine else time.perf_counter


def _forward(network: nn.Module, side: int) -> Callable[[], None]:
    """Return a function that runs a forward pass and waits for the device."""
    image = torch.rand(1, 3, side, side, device=next(network.parameters()).device)

    def run() -> None:
        network(image)
        if image.is_cuda:
            torch.cuda.synchronize()

    return run
