"""Benchmarks of layers, networks and detectors: time, memory and arithmetic on this machine."""

from convattn.bench.report import describe, rows, tables, write_csv, write_plot
from convattn.bench.runner import Measurement, measure
from convattn.bench.spec import Candidate, Case, Setting
from convattn.bench.suites import SUITES, Plan

__all__ = [
    "SUITES",
    "Candidate",
    "Case",
    "Measurement",
    "Plan",
    "Setting",
    "describe",
    "measure",
    "rows",
    "tables",
    "write_csv",
    "write_plot",
]
