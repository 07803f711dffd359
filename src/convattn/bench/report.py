"""Measurements as tables, CSV and plots."""

import csv
import math
import platform
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.markup import escape
from rich.table import Table

from convattn.bench.runner import Measurement
from convattn.bench.spec import Case, Setting
from convattn.files import replacing
from convattn.ops.cpu.library import library

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Row", "describe", "rows", "tables", "write_csv", "write_plot"]

Row = dict[str, Any]
"""The figures of a side by name and unit; None where there is none."""


def describe(setting: Setting) -> str:
    """Describe the device, how it is used, and the versions."""
    threads = kernels = ""
    if setting.device == "cpu":
        threads = f", {setting.threads} thread{'s' * (setting.threads > 1)}"
        kernels = f" (kernels: {library.convattn_instruction_set().decode()})" if library else ""
    clock = " (processor time)" if setting.by_processor else ""
    precision = str(setting.dtype).removeprefix("torch.")
    return (
        f"{_name_of(setting.device)}{threads}{clock}, {precision}; convattn {version('convattn')}{kernels}, "
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.system()}"
    )


def rows(case: Case, measurements: Sequence[Measurement]) -> Iterator[Row]:
    """Yield the figures of each candidate of a case, compared with the first."""
    first = measurements[0]
    for measurement in measurements:
        lower, upper = measurement.quartiles
        figures = {
            "latency_ms": 1e3 * measurement.latency,
            "lower_quartile_ms": 1e3 * lower,
            "upper_quartile_ms": 1e3 * upper,
            "mpx_per_s": measurement.throughput / 1e6,
            "peak_memory_mb": _in(1e6, measurement.memory),
            "gmacs": _in(1e9, measurement.multiply_accumulates),
            "speedup": measurement.speed(first),
            "memory_divisor": measurement.memory_divisor(first),
        }
        yield {
            "case": case.title,
            "name": measurement.candidate.name,
            "input": "x".join(map(str, measurement.candidate.shape)),
            "pixels": measurement.candidate.pixels,
            "rounds": len(measurement.seconds),
            **{name: None if math.isnan(value) else value for name, value in figures.items()},
            "parameters": measurement.parameters,
            "failure": measurement.failure,
        }


def tables(rows: Iterable[Row]) -> Iterator[Table]:
    """Yield a table for each case; the last columns compare with its first candidate, for each pixel."""
    for title, members in groupby(rows, lambda row: row["case"]):
        table = Table("", title=title, title_justify="left", title_style="bold")
        headings = "latency (ms)", "middle half", "Mpx/s", "memory (MB)", "GMACs", "parameters"
        for heading in (*headings, "speed-up ×", "memory ÷"):
            table.add_column(heading, justify="right")
        for row in members:
            if row["failure"]:
                table.add_row(row["name"], "failed")
                reason = escape(f"{row['name']}: {row['failure']}")
                table.caption = f"{table.caption or ''}\n{reason}".strip()
                continue
            table.add_row(
                row["name"],
                _short(row["latency_ms"]),
                f"{_short(row['lower_quartile_ms'])}–{_short(row['upper_quartile_ms'])}",
                *(_short(row[name]) for name in ("mpx_per_s", "peak_memory_mb", "gmacs")),
                f"{row['parameters']:,}",
                *(_short(row[name], ".2f") for name in ("speedup", "memory_divisor")),
            )
        yield table


def write_csv(rows: Sequence[Row], path: Path, **context: str) -> None:
    """Write every figure as CSV, a line for each candidate.

    Args:
        rows: What was measured.
        path: The file.
        context: Further columns, the same on each line.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0], *context])
        writer.writeheader()
        writer.writerows(row | context for row in rows)


def write_plot(rows: Sequence[Row], path: Path, caption: str) -> None:
    """Draw latency and memory: bars for candidates of equal size, lines where their sizes differ.

    Args:
        rows: What was measured.
        path: The file; its suffix says the format.
        caption: Text below the plot.
    """
    from matplotlib.figure import Figure

    drawn = [row for row in rows if not row["failure"]]
    by_size = len({row["pixels"] for row in drawn}) > 1
    figure = Figure(figsize=(11, 4 if by_size else 1.6 + 0.3 * len(drawn)), layout="constrained")
    left, right = figure.subplots(1, 2)
    if by_size:
        _draw_lines(left, drawn, "latency_ms", "latency (ns a pixel of the result)")
        _draw_lines(right, drawn, "peak_memory_mb", "peak memory (bytes a pixel of the result)")
    else:
        _draw_bars(left, drawn, "latency_ms", "latency: median and middle half (ms)")
        _draw_bars(right, drawn, "peak_memory_mb", "peak memory (MB)")
        figure.suptitle(rows[0]["case"])
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(caption, fontsize=7, color="0.4")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _draw_bars(axes: "Axes", rows: Sequence[Row], quantity: str, label: str) -> None:
    """Draw a bar for each candidate."""
    values = [row[quantity] or 0 for row in rows]
    lower, upper = (
        [abs(row[f"{quartile}_quartile_ms"] - row["latency_ms"]) for row in rows]
        for quartile in ("lower", "upper")
    )
    errors = (lower, upper) if quantity == "latency_ms" else None
    bars = axes.barh([row["name"] for row in rows], values, xerr=errors, alpha=0.7)
    axes.bar_label(bars, [_short(row[quantity]) for row in rows], padding=4, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(label)


def _draw_lines(axes: "Axes", rows: Sequence[Row], quantity: str, label: str) -> None:
    """Draw the cost per pixel, a line for each case."""
    for title, members in groupby(rows, lambda row: row["case"]):
        costs = {
            round(row["pixels"] ** 0.5): 1e6 * (row[quantity] or math.nan) / row["pixels"] for row in members
        }
        axes.plot(list(costs), list(costs.values()), marker="o", label=title)
    sides = sorted({round(row["pixels"] ** 0.5) for row in rows})
    axes.set_xscale("log")
    axes.set_xticks(sides, [str(side) for side in sides], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_ylim(bottom=0)
    axes.set(xlabel="side of the result (pixels)", ylabel=label)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")


def _in(unit: float, value: int | None) -> float:
    return math.nan if value is None else value / unit


def _short(value: float | None, spec: str = "#.3g") -> str:
    """Format a value, as a whole number if that has three digits."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:{spec}}"


def _name_of(device: str) -> str:
    """Return the product name of the device."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    with suppress(OSError, StopIteration):  # Linux
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return f"{platform.processor() or platform.machine()}{'' if device == 'cpu' else f' ({device})'}"
