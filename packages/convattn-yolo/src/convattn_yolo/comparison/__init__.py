"""Compare detectors on one dataset by paired training runs, with confidence intervals."""

from convattn_yolo.comparison.report import write_report
from convattn_yolo.comparison.statistics import SequentialTest
from convattn_yolo.comparison.study import Comparison, FinishedRun
from convattn_yolo.comparison.summary import Summary, Table, notes, summarize, tables
from convattn_yolo.comparison.training import Budget, Candidate, Run
from convattn_yolo.startup import install

__all__ = [
    "Budget",
    "Candidate",
    "Comparison",
    "FinishedRun",
    "Run",
    "SequentialTest",
    "Summary",
    "Table",
    "notes",
    "summarize",
    "tables",
    "write_report",
]

install()  # models are named, whether or not the start-up hook is disabled
