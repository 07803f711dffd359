"""``convattn bench``."""

import re
import shlex
import sys
from contextlib import ExitStack
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from convattn.errors import InputError

__all__ = ["bench"]


class Suite(str, Enum):
    """What is measured."""

    attention = "attention"
    conv_attention = "conv-attention"
    networks = "networks"
    scaling = "scaling"
    detector = "detector"


def bench(
    suite: Annotated[
        Suite,
        typer.Argument(
            help="attention: a window attention layer of ESC; conv-attention: a convolutional attention "
            "layer; networks: ESC and other lightweight networks; scaling: how the cost of a pixel "
            "depends on the size of the image; detector: YOLO26n with C3k2_ESC."
        ),
    ],
    candidates: Annotated[
        str | None,
        typer.Option(
            help="Separated by commas; the first is the baseline: networks, also in a variant such as "
            "esc@naive or esc@flex; variants of an attention layer such as naive,cpu; detectors."
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            help="Of a network's result (1280x720), a layer's feature map (288), or a detector's image "
            "(640).",
        ),
    ] = None,
    scale: Annotated[int, typer.Option(min=1, help="Of networks.")] = 4,
    largest: Annotated[
        int | None, typer.Option(min=64, help="Side of the largest image of the suite scaling (1024).")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="How often each candidate is timed (7).")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="On a CPU; by default as many as torch uses.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16 or auto.")] = "fp32",
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes and three rounds.")] = False,
    csv: Annotated[Path | None, typer.Option(help="File for every figure.")] = None,
    plot: Annotated[Path | None, typer.Option(help="File for a plot: .png, .svg or .pdf.")] = None,
) -> None:
    """Measure time, memory and arithmetic of candidates in turns: medians, spread and ratios.

    Memory is the peak of a forward pass without weights and input, on a CPU in a process of its own.
    """
    import torch
    from rich.console import Console

    from convattn.bench import runner
    from convattn.bench.report import Row, describe, rows, tables, write_csv, write_plot
    from convattn.bench.spec import Setting
    from convattn.bench.suites import SUITES, Plan
    from convattn.files import replacing
    from convattn.inference.devices import choose_device, choose_precision

    if plot and plot.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InputError(f"{plot} cannot be drawn: its name must end in .png, .svg or .pdf.")
    if plot and not find_spec("matplotlib"):
        raise InputError('Plots are drawn by matplotlib, which is missing: pip install "convattn[bench]".')
    where = choose_device(device)
    setting = Setting(str(where), choose_precision(precision, where), threads or torch.get_num_threads())
    names = list(dict.fromkeys(name.strip() for name in candidates.split(","))) if candidates else None
    cases = SUITES[suite.value](Plan(_size(size), names, scale, largest, setting.device, quick))
    about = describe(setting)
    command = shlex.join(["convattn", *sys.argv[1:]])
    messages, console = Console(stderr=True), Console(width=max(Console().width, 150))  # room for the table
    with ExitStack() as stack:
        csv_file, plot_file = (path and stack.enter_context(replacing(path)) for path in (csv, plot))
        measured: list[Row] = []
        with messages.status("") as status:
            for case in cases:
                results = runner.measure(case, setting, rounds or (3 if quick else 7), status.update)
                measured.extend(rows(case, results))
        for table in tables(measured):
            console.print(table)
        console.print(f"{about}\n{command}", highlight=False, soft_wrap=True)
        if csv_file:
            write_csv(measured, csv_file, environment=about, command=command)
        if plot_file:
            write_plot(measured, plot_file, f"{about}\n{command}")


def _size(text: str | None) -> tuple[int, int] | None:
    """Width and height of ``288`` or ``1280x720``."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:[x×](\d+))?", text)
    width, height = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not width or not height:
        raise InputError(f"{text} is no size: give pixels such as 288 or 1280x720, at least 1.")
    return width, height
