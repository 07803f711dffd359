"""Measuring several modules side by side."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convattn import timing
from convattn.bench import memory
from convattn.bench.candidates import FORMS, OURS, Form

__all__ = ["Case", "Measurement", "Setting", "Side", "count", "measure"]


@dataclass(frozen=True)
class Setting:
    """Where and how everything is run.

    Attributes:
        device: As torch names it.
        dtype: Of products; below float32 torch's autocast decides what is no product, as in the upscaler.
        threads: On a CPU.
    """

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    threads: int = 1

    @property
    def by_processor(self) -> bool:
        """Whether times are the processor's, which a busy machine disturbs less than the wall's."""
        return self.device == "cpu" and self.threads == 1


@dataclass(frozen=True)
class Side:
    """One of the modules that are compared; can be pickled.

    Attributes:
        name: What it is called in tables.
        build: Makes the module, which takes one tensor.
        shape: Of that tensor.
        pixels: How many the result has.
        form: What it is computed in.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    pixels: int
    form: Form = OURS

    def prepare(self, setting: Setting) -> Callable[[], None]:
        """Build the module and return its forward pass, which waits for the device."""
        torch.manual_seed(0)
        torch.set_num_threads(setting.threads)
        place = dict(device=setting.device, memory_format=torch.channels_last)
        dtype = self.form.dtype or setting.dtype
        autocast = torch.autocast(torch.device(setting.device).type, dtype, dtype != torch.float32)
        module = self.build().eval().requires_grad_(False)
        module = module.to(**place)  # type: ignore[call-overload]
        x = torch.rand(self.shape).to(**place)  # type: ignore[call-overload]
        self.form.apply(module)
        with self.form.active(), torch.inference_mode():
            run = self.form.runner(module, x)

        @torch.inference_mode()
        def forward() -> None:
            with self.form.active(), autocast:
                run()
            if setting.device != "cpu":
                torch.accelerator.synchronize(setting.device)

        return forward


@dataclass(frozen=True)
class Case:
    """Sides that are compared with the first of them."""

    title: str
    sides: list[Side]


@dataclass(frozen=True)
class Measurement:
    """What a side costs.

    Attributes:
        side: Which.
        seconds: Of its forward pass in each round; empty where it failed.
        memory: Bytes that a forward pass takes at its peak beside weights and input; None where unknown.
        multiply_accumulates: Those of convolutions and matrix products in one pass; None where unknown.
        parameters: How many weights it has.
        failure: Why it could not be measured.
    """

    side: Side
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
        """Pixels of the result a second."""
        return self.side.pixels / self.latency

    def speed(self, first: "Measurement") -> float:
        """How many times the first one's pixels it makes in the same time."""
        if not len(self.seconds) or not len(first.seconds):
            return float("nan")
        return timing.ratio(first.seconds, self.seconds) * self.side.pixels / first.side.pixels

    def memory_divisor(self, first: "Measurement") -> float:
        """How many times more memory the first one takes for a pixel."""
        if not self.memory or not first.memory:
            return float("nan")
        return (first.memory / first.side.pixels) / (self.memory / self.side.pixels)


def measure(
    case: Case, setting: Setting, rounds: int, report: Callable[[str], None] = lambda step: None
) -> list[Measurement]:
    """Measure the sides of a case in turns.

    A side that fails is told with its reason; the others are measured all the same.

    Args:
        case: What is compared.
        setting: Where and how.
        rounds: How often each side is timed.
        report: Takes a line on what is being done.
    """
    runs: dict[str, Callable[[], None]] = {}
    peaks: dict[str, int | None] = {}
    failures: dict[str, str] = {}
    for side in case.sides:
        report(f"{case.title}: memory of {side.name}")
        try:
            # In a process of its own first, so that one that needs too much ends that process only.
            peaks[side.name] = memory.peak(side, setting)
            run = side.prepare(setting)
            run()
            runs[side.name] = run
        except Exception as error:
            failures[side.name] = (str(error).strip() or type(error).__name__).splitlines()[0]
    report(f"{case.title}: {rounds} rounds of {len(runs)}")
    clock = time.process_time if setting.by_processor else time.perf_counter
    seconds = timing.time_in_turns(runs, rounds, warm_up=0, clock=clock)
    return [
        Measurement(
            side,
            seconds.get(side.name, np.empty(0)),
            peaks.get(side.name),
            *count(side),
            failures.get(side.name),
        )
        for side in case.sides
    ]


@torch.inference_mode()
def count(side: Side) -> tuple[int | None, int]:
    """Multiply-accumulates of torch's own operations, and parameters."""
    for device in ("meta", "cpu"):  # shapes do, but for networks that look at numbers
        module = side.build().eval().requires_grad_(False)
        parameters = sum(parameter.numel() for parameter in module.parameters())
        plain = FORMS["naive"]
        plain.apply(module)
        with suppress(Exception), FlopCounterMode(display=False) as counter, plain.active():
            module.to(device)(torch.zeros(side.shape, device=device))
            return counter.get_total_flops() // 2, parameters
    return None, parameters
