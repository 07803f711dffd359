"""What layers and networks cost: time, memory and arithmetic, measured in turns on the device at hand."""

from .measuring import Case, Measurement, Setting, Side, measure
from .report import describe, rows, tables, write_csv, write_plot
from .subjects import SUBJECTS, Plan

__all__ = [
    "SUBJECTS",
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
