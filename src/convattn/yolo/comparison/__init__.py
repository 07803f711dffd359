"""Does it help on my data? Paired trainings of detectors, and what they can and cannot tell."""

from convattn.yolo.comparison.report import write_report
from convattn.yolo.comparison.study import Comparison, Progress
from convattn.yolo.comparison.summary import Summary, Table, notes, summarize, tables
from convattn.yolo.comparison.training import Budget, Candidate, Run

__all__ = [
    "Budget",
    "Candidate",
    "Comparison",
    "Progress",
    "Run",
    "Summary",
    "Table",
    "notes",
    "summarize",
    "tables",
    "write_report",
]
