"""Measuring candidates: they take turns, so that other load on the machine affects all alike."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from convattn.bench.memory import peak
from convattn.bench.spec import Candidate, Case, Setting
from convattn.bench.timing import ratio, time_in_turns
from convattn.bench.variants import VARIANTS
from convattn.progress import Progress, ignore, share

__all__ = ["Measurement", "count", "measure"]


@dataclass(frozen=True)
class Measurement:
    """The cost of a candidate.

    Attributes:
        candidate: What was measured.
        seconds: Of its forward pass in each round; empty where it failed.
        memory: Peak memory of a forward pass in bytes, without weights and input; None where unknown.
        multiply_accumulates: Of convolutions and matrix products in one pass; None where unknown.
        parameters: Number of parameters.
        failure: Why it could not be measured.
    """

    candidate: Candidate
    seconds: np.ndarray
    memory: int | None = None
    multiply_accumulates: int | None = None
    parameters: int | None = None
    failure: str | None = None

    @property
    def latency(self) -> float:
        """Median, in seconds."""
        return float(np.median(self.seconds)) if len(self.seconds) else float("nan")

    @property
    def quartiles(self) -> tuple[float, float]:
        """The bounds of the middle half of the rounds, in seconds."""
        lower, upper = np.percentile(self.seconds, (25, 75)) if len(self.seconds) else (np.nan, np.nan)
        return float(lower), float(upper)

    @property
    def throughput(self) -> float:
        """Pixels of the result per second."""
        return self.candidate.pixels / self.latency

    def speed(self, first: "Measurement") -> float:
        """Speed-up over the first candidate, for each pixel of the result."""
        if not len(self.seconds) or not len(first.seconds):
            return float("nan")
        return ratio(first.seconds, self.seconds) * self.candidate.pixels / first.candidate.pixels

    def memory_divisor(self, first: "Measurement") -> float:
        """How many times less memory than the first candidate it takes, for each pixel of the result."""
        if not self.memory or not first.memory:
            return float("nan")
        return (first.memory / first.candidate.pixels) / (self.memory / self.candidate.pixels)


def measure(case: Case, setting: Setting, rounds: int, progress: Progress = ignore) -> list[Measurement]:
    """Measure the candidates of a case in turns.

    A candidate that fails is reported with its reason; the others are measured nevertheless.

    Args:
        case: What is compared.
        setting: Where and how.
        rounds: How often each candidate is timed.
        progress: Called now and then with the fraction that is done: half of it is preparation.
    """
    runs: dict[str, Callable[[], None]] = {}
    peaks: dict[str, int | None] = {}
    failures: dict[str, str] = {}
    preparing, timing = share(progress, 0, 2), share(progress, 1, 2)
    with setting.limited_threads():
        for number, candidate in enumerate(case.candidates, 1):
            try:
                # A process of its own comes first: a candidate that needs too much memory ends only that one.
                peaks[candidate.name] = peak(candidate, setting)
                run = candidate.prepare(setting)
                run()
                runs[candidate.name] = run
            except Exception as error:
                failures[candidate.name] = (str(error).strip() or type(error).__name__).splitlines()[0]
            preparing(number / len(case.candidates))
        clock = time.process_time if setting.by_processor else time.perf_counter
        seconds = time_in_turns(runs, rounds, warm_up=0, clock=clock, progress=timing)
    nothing: tuple[int | None, int | None] = None, None
    counts = {candidate.name: count(candidate) for candidate in case.candidates if candidate.name in runs}
    return [
        Measurement(
            candidate,
            seconds.get(candidate.name, np.empty(0)),
            peaks.get(candidate.name),
            *counts.get(candidate.name, nothing),
            failures.get(candidate.name),
        )
        for candidate in case.candidates
    ]


@torch.inference_mode()
def count(candidate: Candidate) -> tuple[int | None, int]:
    """Return the multiply-accumulates of torch's operations, and the number of parameters."""
    for device in ("meta", "cpu"):  # networks that depend on values do not run on meta tensors
        module = candidate.build().eval().requires_grad_(False)
        parameters = sum(parameter.numel() for parameter in module.parameters())
        naive = VARIANTS["naive"]
        naive.apply(module)
        with suppress(Exception), FlopCounterMode(display=False) as counter, naive.active():
            module.to(device)(torch.zeros(candidate.shape, device=device))
            return counter.get_total_flops() // 2, parameters
    return None, parameters
