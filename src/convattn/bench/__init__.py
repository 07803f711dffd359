"""What layers and networks cost: time, memory and arithmetic, measured in turns on the device at hand."""

from convattn.bench.report import describe, rows, tables, write_csv, write_plot
from convattn.bench.runner import Case, Measurement, Setting, Side, measure
from convattn.bench.suites import SUITES, Plan

__all__ = [
    "SUITES",
    "Case",
    "Measurement",
    "Plan",
    "Setting",
    "Side",
    "describe",
    "measure",
    "rows",
    "tables",
    "write_csv",
    "write_plot",
]
