"""What a network costs: parameters, operations and the time of a forward pass."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

__all__ = ["Cost", "measure_costs"]


@dataclass(frozen=True)
class Cost:
    """The cost of a fused network on one picture.

    Attributes:
        parameters: Number of parameters.
        gflops: Billions of floating-point operations (two a multiply-add); NaN where they can't be counted.
        latency: Median time of a forward pass, in milliseconds.
        latency_ratio: Median over the rounds of the time divided by the first network's time in the same
            round.
    """

    parameters: int
    gflops: float
    latency: float
    latency_ratio: float


def measure_costs(networks: Mapping[str, tuple[nn.Module, int]], rounds: int = 30) -> dict[str, Cost]:
    """Measure networks against the first of them.

    The networks take turns, one forward pass each a round, so that whatever else slows the machine falls on
    all of them alike; on a CPU they run on one thread.

    Args:
        networks: Name to a fused network in evaluation mode and the side of its square input in pixels.
        rounds: How often each is timed.
    """
    from ultralytics.utils.torch_utils import get_flops

    milliseconds = _alternate(networks, rounds)
    baseline = next(iter(milliseconds.values()))
    return {
        name: Cost(
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            gflops=float(get_flops(network, side)) or float("nan"),
            latency=float(np.median(milliseconds[name])),
            latency_ratio=float(np.median(milliseconds[name] / baseline)),
        )
        for name, (network, side) in networks.items()
    }


@torch.inference_mode()
def _alternate(networks: Mapping[str, tuple[nn.Module, int]], rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds of each network's forward pass in each round."""
    threads, warm_up = torch.get_num_threads(), 3
    pictures = {
        name: torch.rand(1, 3, side, side, device=next(network.parameters()).device)
        for name, (network, side) in networks.items()
    }
    times = np.empty((len(networks), warm_up + rounds))
    torch.set_num_threads(1)
    try:
        for round_ in range(warm_up + rounds):
            for row, (name, (network, _)) in enumerate(networks.items()):
                times[row, round_] = _time_forward(network, pictures[name])
    finally:
        torch.set_num_threads(threads)
    return dict(zip(networks, 1e3 * times[:, warm_up:], strict=True))


def _time_forward(network: nn.Module, picture: torch.Tensor) -> float:
    """Seconds of one forward pass."""
    synchronize = torch.cuda.synchronize if picture.is_cuda else lambda: None
    synchronize()
    start = time.perf_counter()
    network(picture)
    synchronize()
    return time.perf_counter() - start
