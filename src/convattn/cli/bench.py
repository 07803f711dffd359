"""``convattn bench``."""

import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convattn.choices import Precision
from convattn.cli.options import Device, Precisions, with_groups
from convattn.errors import InputError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from convattn.bench.spec import Case, Setting

__all__ = ["bench"]


class Suite(str, Enum):
    """What is measured."""

    attention = "attention"
    conv_attention = "conv-attention"
    networks = "networks"
    scaling = "scaling"
    detector = "detector"
    training = "training"


@dataclass(frozen=True)
class Measurement:
    """What to measure, and how."""

    candidates: Annotated[
        str | None,
        typer.Option(
            help="What to compare, separated by commas, the baseline first: networks, also in a variant such "
            "as esc@naive or esc@flex; variants of an attention layer such as naive,cpu; detectors."
        ),
    ] = None
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            help="Size of a network's result (1280x720), a layer's feature map (288) or a detector's image "
            "(640); in training, of a patch (48) or a detector's image (160).",
        ),
    ] = None
    scale: Annotated[int, typer.Option(min=1, help="Scale of the networks.")] = 4
    largest: Annotated[
        int | None, typer.Option(min=64, help="Side of the largest image of the suite scaling (1024).")
    ] = None
    rounds: Annotated[int | None, typer.Option(min=1, help="Number of timings of each candidate (7).")] = None
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; by default as many as torch uses.")
    ] = None
    device: Device = "auto"
    precision: Precisions = Precision.fp32
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes and three rounds.")] = False

    def setting(self) -> "Setting":
        """Return the device, the precision and the number of threads."""
        import torch

        from convattn.bench.spec import Setting
        from convattn.inference.devices import choose_device, choose_precision

        device = choose_device(self.device)
        precision = choose_precision(self.precision.value, device)
        return Setting(str(device), precision, self.threads or torch.get_num_threads())

    def cases(self, suite: Suite, setting: "Setting") -> "Sequence[Case]":
        """Return the cases of a suite."""
        from convattn.bench.suites import SUITES, Plan

        names = self.candidates and list(dict.fromkeys(name.strip() for name in self.candidates.split(",")))
        plan = Plan(_size(self.size), names or None, self.scale, self.largest, setting.device, self.quick)
        return SUITES[suite.value](plan)


@dataclass(frozen=True)
class Files:
    """Output files."""

    csv: Annotated[Path | None, typer.Option(help="Write every figure to this file.")] = None
    plot: Annotated[Path | None, typer.Option(help="Write a plot to this file: .png, .svg or .pdf.")] = None

    def check(self) -> None:
        """Raise an InputError if the plot cannot be drawn."""
        if self.plot and self.plot.suffix.lower() not in (".png", ".svg", ".pdf"):
            raise InputError(f"{self.plot} cannot be drawn: its name must end in .png, .svg or .pdf.")
        if self.plot and not find_spec("matplotlib"):
            raise InputError(
                'Plots are drawn by matplotlib, which is missing: pip install "convattn[bench]".'
            )


@with_groups
def bench(
    suite: Annotated[
        Suite,
        typer.Argument(
            help="attention: a window attention layer of ESC; conv-attention: a convolutional attention "
            "layer; networks: ESC and other lightweight networks; scaling: how the cost of a pixel "
            "depends on the size of the image; detector: YOLO26n with C3k2_ESC; training: a training step, "
            "by torch's operations and by the compiled kernels."
        ),
    ],
    measurement: Measurement,
    files: Files,
) -> None:
    """Measure time, memory and arithmetic of candidates in turns: medians, spread and ratios.

    Memory is the peak of a forward pass or step without weights and input, on a CPU in a process of its own.
    """
    from rich.console import Console
    from rich.progress import Progress

    from convattn.bench import runner
    from convattn.bench.report import Row, describe, rows, tables, write_csv, write_plot
    from convattn.files import replacing

    files.check()
    setting = measurement.setting()
    cases = measurement.cases(suite, setting)
    rounds = measurement.rounds or (3 if measurement.quick else 7)
    about, command = describe(setting), shlex.join(["convattn", *sys.argv[1:]])
    messages, console = Console(stderr=True), Console(width=max(Console().width, 150))  # room for the table
    with ExitStack() as stack:
        csv, plot = (path and stack.enter_context(replacing(path)) for path in (files.csv, files.plot))
        measured: list[Row] = []
        with Progress(console=messages, disable=not messages.is_terminal) as bar:
            for case in cases:
                task = bar.add_task(case.title, total=1)
                results = runner.measure(case, setting, rounds, partial(_advance, bar, task))
                measured.extend(rows(case, results))
        for table in tables(measured):
            console.print(table)
        console.print(f"{about}\n{command}", highlight=False, soft_wrap=True)
        if csv:
            write_csv(measured, csv, environment=about, command=command)
        if plot:
            write_plot(measured, plot, f"{about}\n{command}")


def _advance(bar: "Progress", task: "TaskID", fraction: float) -> None:
    bar.update(task, completed=fraction)


def _size(text: str | None) -> tuple[int, int] | None:
    """Width and height of ``288`` or ``1280x720``."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:[x×](\d+))?", text)
    width, height = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not width or not height:
        raise InputError(f"{text} is no size: give pixels such as 288 or 1280x720, at least 1.")
    return width, height
