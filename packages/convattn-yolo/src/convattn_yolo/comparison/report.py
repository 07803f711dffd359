"""A comparison written down: CSV files, plots and a web page that holds everything."""

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape

from convattn_yolo.comparison.plots import plot_accuracy_by_latency, plot_accuracy_by_size, plot_examples
from convattn_yolo.comparison.statistics import SequentialTest
from convattn_yolo.comparison.study import Comparison
from convattn_yolo.comparison.summary import Summary, notes, tables

__all__ = ["write_report"]


def write_report(
    comparison: Comparison, summaries: Sequence[Summary], test: SequentialTest | None = None
) -> Path:
    """Write ``report.html``, its plots and its tables into the comparison's folder.

    Args:
        comparison: What was compared.
        summaries: What came out.
        test: The sequential test that ended the trainings, if there was one.

    Returns:
        The web page; it needs no other file.
    """
    folder = comparison.folder
    contents = tables(summaries)
    for table, name in zip(contents, ("models.csv", "differences.csv", "trainings.csv"), strict=True):
        table.save_csv(folder / name)
    captions = {
        "ap_by_latency.png": "AP, and AP of small objects, against latency: a small dot for each training, a "
        "large one for their mean",
        "ap_by_size.png": "AP by object size: a dot for each training, a bar for their mean",
        "examples.png": "Validation images, taken evenly from the list: labels, then detections with a "
        "score of at least 0.25 by the first training of each model",
    }
    figures = (
        plot_accuracy_by_latency(summaries),
        plot_accuracy_by_size(summaries),
        plot_examples(summaries, comparison.truth, comparison.data["names"]),
    )
    for figure, name in zip(figures, captions, strict=True):
        figure.savefig(folder / name, dpi=110)
    page = folder / "report.html"
    page.write_text(
        _environment()
        .get_template("report.html.j2")
        .render(
            title=f"{', '.join(summary.model for summary in summaries[1:])} against {summaries[0].model}",
            tables=contents,
            plots=[
                (base64.b64encode((folder / name).read_bytes()).decode(), captions[name]) for name in captions
            ],
            notes=notes(comparison, summaries, test),
            versions=summaries[0].runs[0].versions,
        ),
        encoding="utf-8",
    )
    return page


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("convattn_yolo.comparison", ""),
        autoescape=select_autoescape(["html", "html.j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
