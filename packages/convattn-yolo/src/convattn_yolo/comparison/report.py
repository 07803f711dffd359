"""Write the results of a comparison: CSV files, plots and a self-contained web page."""

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape

from convattn.files import replacing
from convattn_yolo.comparison.plots import plot_accuracy_by_latency, plot_accuracy_by_size, plot_examples
from convattn_yolo.comparison.statistics import SequentialTest
from convattn_yolo.comparison.study import Comparison
from convattn_yolo.comparison.summary import Summary, notes, tables

__all__ = ["write_report"]


def write_report(
    comparison: Comparison, summaries: Sequence[Summary], test: SequentialTest | None = None
) -> Path:
    """Write ``report.html``, the plots and the tables to the comparison's folder.

    Args:
        comparison: The comparison.
        summaries: Its results by model, the baseline first.
        test: The sequential test that ended runs early, if there was one.

    Returns:
        Path of the web page, which needs no other file.
    """
    folder = comparison.folder
    contents = tables(summaries)
    for table, name in zip(contents, ("models.csv", "differences.csv", "runs.csv"), strict=True):
        table.save_csv(folder / name)
    captions = {
        "ap_by_latency.png": "AP and AP small against latency: a dot for each run, a large one for the mean",
        "ap_by_size.png": "AP by object size: a dot for each run, a bar for their mean",
        "examples.png": "Validation images at equal distances in the list: labels, then the detections of "
        "each model's first run with a score of at least 0.25",
    }
    figures = (
        plot_accuracy_by_latency(summaries),
        plot_accuracy_by_size(summaries),
        plot_examples(summaries, comparison.truth, comparison.data["names"]),
    )
    for figure, name in zip(figures, captions, strict=True):
        with replacing(folder / name) as temporary:
            figure.savefig(temporary, dpi=110)
    page = folder / "report.html"
    text = (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=f"{', '.join(s.model for s in summaries[1:])} compared with {summaries[0].model}",
            tables=contents,
            plots=[
                (base64.b64encode((folder / name).read_bytes()).decode(), captions[name]) for name in captions
            ],
            notes=notes(comparison, summaries, test),
            versions=summaries[0].runs[0].versions,
        )
    )
    with replacing(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return page


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("convattn_yolo.comparison", ""),
        autoescape=select_autoescape(["html", "html.j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
