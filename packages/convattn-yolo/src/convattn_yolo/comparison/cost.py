"""What a network costs: parameters, operations and the time of a forward pass."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from convattn import timing

__all__ = ["Cost", "measure_costs"]


@dataclass(frozen=True)
class Cost:
    """The cost of a fused network on one image.

    Attributes:
        parameters: Number of parameters.
        gflops: Billions of floating-point operations (two a multiply-add); NaN where they can't be counted.
        latency: Median time of a forward pass, in milliseconds.
        latency_ratio: Median over the rounds of the time divided by the first network's time in the same
            round.
        machine: What it was timed on.
    """

    parameters: int
    gflops: float
    latency: float
    latency_ratio: float
    machine: str


def measure_costs(networks: Mapping[str, tuple[nn.Module, int]], rounds: int = 30) -> dict[str, Cost]:
    """Measure networks against the first of them.

    The networks take turns, one forward pass each a round, so that whatever else slows the machine falls on
    all of them alike; on a CPU they run on one thread.

    Args:
        networks: Name to a fused network in evaluation mode and the side of its square input in pixels.
        rounds: How often each is timed.
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
    """The device that a network is on, with the instruction set where it is a CPU."""
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
    """Seconds of each network's forward pass in each round."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        runs = {name: _forward(network, side) for name, (network, side) in networks.items()}
        return timing.time_in_turns(runs, rounds, warm_up=3)
    finally:
        torch.set_num_threads(threads)


def _forward(network: nn.Module, side: int) -> Callable[[], None]:
    """A forward pass that waits for the device."""
    image = torch.rand(1, 3, side, side, device=next(network.parameters()).device)

    def run() -> None:
        network(image)
        if image.is_cuda:
            torch.cuda.synchronize()

    return run
