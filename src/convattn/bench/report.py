"""Measurements as tables, CSV and a picture."""

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
from rich.table import Table

from .measuring import Case, Measurement, Setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Row", "describe", "rows", "tables", "write_csv", "write_plot"]

Row = dict[str, Any]
"""The figures of a side by name and unit; None where there is none."""


def describe(setting: Setting) -> str:
    """The device, how it is used, and the versions at work."""
    threads = f", {setting.threads} thread{'s' * (setting.threads > 1)}" if setting.device == "cpu" else ""
    clock = " (processor's time)" if setting.by_processor else ""
    precision = str(setting.dtype).removeprefix("torch.")
    return (
        f"{_name_of(setting.device)}{threads}{clock}, {precision}; convattn {version('convattn')}, "
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.system()}"
    )


def rows(case: Case, measurements: Sequence[Measurement]) -> Iterator[Row]:
    """The figures of a case, side by side with the first."""
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
            "times_as_fast": measurement.speed(first),
            "times_less_memory": measurement.thrift(first),
        }
        yield {
            "case": case.title,
            "name": measurement.side.name,
            "input": "x".join(map(str, measurement.side.shape)),
            "pixels": measurement.side.pixels,
            "rounds": len(measurement.seconds),
            **{name: None if math.isnan(value) else value for name, value in figures.items()},
            "parameters": measurement.parameters,
            "failure": measurement.failure,
        }


def tables(rows: Iterable[Row]) -> Iterator[Table]:
    """A table for each case; the last columns compare with its first side, pixel for pixel."""
    for title, members in groupby(rows, lambda row: row["case"]):
        table = Table("", title=title, title_justify="left", title_style="bold")
        headings = "latency (ms)", "middle half", "Mpx/s", "memory (MB)", "GMACs", "parameters"
        for heading in (*headings, "times as fast", "times less memory"):
            table.add_column(heading, justify="right")
        for row in members:
            if row["failure"]:
                table.add_row(row["name"], "failed")
                table.caption = f"{table.caption or ''}\n{row['name']}: {row['failure']}".strip()
                continue
            spread = f"{row['lower_quartile_ms']:.4g}–{row['upper_quartile_ms']:.4g}"
            costs = (row[name] for name in ("mpx_per_s", "peak_memory_mb", "gmacs"))
            ratios = (row[name] for name in ("times_as_fast", "times_less_memory"))
            table.add_row(
                row["name"],
                f"{row['latency_ms']:.4g}",
                spread,
                *(_short(value, "#.3g" if value and value < 1000 else ",.0f") for value in costs),
                _short(row["parameters"], ","),
                *(_short(value, ".2f") for value in ratios),
            )
        yield table


def write_csv(rows: Sequence[Row], path: Path, **context: str) -> None:
    """Write every figure, a line for each side.

    Args:
        rows: What was measured.
        path: The file.
        context: Further columns, the same on each line.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0], *context])
        writer.writeheader()
        writer.writerows(row | context for row in rows)


def write_plot(rows: Sequence[Row], path: Path, caption: str) -> None:
    """Draw latency and memory: bars of sides that do the same, lines where their sizes differ.

    Args:
        rows: What was measured.
        path: The file; its suffix says the format.
        caption: What stands below.
    """
    from matplotlib.figure import Figure

    cases = {
        title: [row for row in members if not row["failure"]]
        for title, members in groupby(rows, lambda row: row["case"])
    }
    by_size = len({row["pixels"] for row in rows}) > 1
    height = 4 if by_size else 1.6 + 0.3 * len(rows)
    figure = Figure(figsize=(11, height), layout="constrained")
    panels = zip(
        figure.subplots(1, 2),
        ("latency_ms", "peak_memory_mb"),
        ("latency: median and middle half (ms)", "peak memory (MB)"),
        ("latency (ns a pixel of the result)", "peak memory (bytes a pixel of the result)"),
        strict=True,
    )
    for axes, quantity, label, label_by_size in panels:
        for title, members in cases.items():
            if by_size:
                _draw_line(axes, members, quantity, title)
            else:
                _draw_bars(axes, members, quantity)
        axes.set(**({"ylabel": label_by_size} if by_size else {"xlabel": label}))
        axes.spines[["top", "right"]].set_visible(False)
    if not by_size:
        figure.suptitle(rows[0]["case"])
    figure.supxlabel(caption, fontsize=7, color="0.4")
    figure.savefig(path, dpi=150)


def _draw_bars(axes: "Axes", rows: Sequence[Row], quantity: str) -> None:
    values = [row[quantity] or 0 for row in rows]
    spread = [
        (row["latency_ms"] - row["lower_quartile_ms"], row["upper_quartile_ms"] - row["latency_ms"])
        for row in rows
    ]
    errors = list(zip(*spread, strict=True)) if quantity == "latency_ms" else None
    bars = axes.barh([row["name"] for row in rows], values, xerr=errors, alpha=0.7)
    axes.bar_label(bars, [f"{value:.3g}" if value else "unknown" for value in values], padding=4, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.15)


def _draw_line(axes: "Axes", rows: Sequence[Row], quantity: str, label: str) -> None:
    values = [1e6 * (row[quantity] or math.nan) / row["pixels"] for row in rows]
    axes.plot([row["pixels"] ** 0.5 for row in rows], values, marker="o", label=label)
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("side of the result (pixels)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")


def _in(unit: float, value: int | None) -> float:
    return math.nan if value is None else value / unit


def _short(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form).rstrip(".")


def _name_of(device: str) -> str:
    """What the maker calls the device."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    with suppress(OSError, StopIteration):  # Linux
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return f"{platform.processor() or platform.machine()}{'' if device == 'cpu' else f' ({device})'}"
