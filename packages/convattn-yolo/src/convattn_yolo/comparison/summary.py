"""Summarize the finished runs of a comparison as numbers, tables and notes."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convattn.files import replacing
from convattn_yolo.comparison.accuracy import METRICS, count_by_size
from convattn_yolo.comparison.cost import Cost
from convattn_yolo.comparison.statistics import (
    CONFIDENCE,
    PairedDifference,
    SequentialTest,
    paired_difference,
)
from convattn_yolo.comparison.study import Comparison
from convattn_yolo.comparison.training import Run

__all__ = ["Summary", "Table", "notes", "summarize", "tables"]

_HEADINGS = {metric: metric.replace("_", " ") for metric in METRICS}

_HEADS = {
    frozenset({False}): "the one-to-many head with non-maximum suppression (nms=None, ultralytics' default)",
    frozenset({True}): "the NMS-free head",
}

_FEW = 50  # with fewer objects, one detection more or less changes AP by two points or more


@dataclass(frozen=True)
class Summary:
    """The results of one model.

    Attributes:
        model: Its name.
        runs: Its finished runs.
        cost: Its parameters, operations and latency.
        differences: The paired difference from the baseline for each metric; empty for the baseline.
    """

    model: str
    runs: list[Run]
    cost: Cost
    differences: dict[str, PairedDifference]

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the runs, in [0, 1]."""
        return float(np.mean([run.metrics[metric] for run in self.runs]))


@dataclass(frozen=True)
class Table:
    """A table of formatted cells."""

    title: str
    header: list[str]
    rows: list[list[str]]

    def save_csv(self, file: Path) -> None:
        """Write the table as comma-separated values."""
        with replacing(file) as temporary, temporary.open("w", newline="") as stream:
            csv.writer(stream).writerows([self.header, *self.rows])


def summarize(
    runs: Sequence[Run], costs: Mapping[str, Cost], test: SequentialTest | None = None
) -> list[Summary]:
    """Summarize the runs of each model.

    Args:
        runs: Finished runs.
        costs: The cost of each model, the baseline first.
        test: The sequential test that ended runs early, if there was one; its intervals are wider.
    """
    by_model = {model: {run.seed: run for run in runs if run.model == model} for model in costs}
    baseline, *others = by_model
    confidence = test.confidence if test else CONFIDENCE
    differences: dict[str, dict[str, PairedDifference]] = {baseline: {}}
    for model in others:
        pairs = [
            (by_model[baseline][seed], run)
            for seed, run in by_model[model].items()
            if seed in by_model[baseline]
        ]
        differences[model] = {
            metric: paired_difference(
                [first.metrics[metric] for first, _ in pairs],
                [run.metrics[metric] for _, run in pairs],
                confidence,
            )
            for metric in METRICS
        }
    return [
        Summary(model, list(by_model[model].values()), costs[model], differences[model]) for model in by_model
    ]


def tables(summaries: Sequence[Summary]) -> list[Table]:
    """Return three tables: the models, their differences from the baseline, and all runs."""
    return [_models(summaries), _differences(summaries), _runs(summaries)]


def _models(summaries: Sequence[Summary]) -> Table:
    header = ["model", "seeds", *_HEADINGS.values(), "params (M)", "GFLOPs", "latency (ms)", "latency ratio"]
    return Table(
        "Models: mean over the seeds",
        header,
        [
            [
                summary.model,
                str(len(summary.runs)),
                *(_number(summary.mean(metric)) for metric in METRICS),
                _number(summary.cost.parameters / 1e6, 3),
                _number(summary.cost.gflops, 2),
                _number(summary.cost.latency, 1),
                _number(summary.cost.latency_ratio, 2),
            ]
            for summary in summaries
        ],
    )


def _differences(summaries: Sequence[Summary]) -> Table:
    return Table(
        f"Paired difference from {summaries[0].model}, with confidence interval",
        ["model", "metric", "pairs", "difference", "low", "high", "verdict"],
        [
            [
                summary.model,
                _HEADINGS[metric],
                str(difference.pairs),
                _number(difference.mean, sign=True),
                _number(difference.low, sign=True),
                _number(difference.high, sign=True),
                difference.verdict,
            ]
            for summary in summaries
            for metric, difference in summary.differences.items()
        ],
    )


def _runs(summaries: Sequence[Summary]) -> Table:
    return Table(
        "All runs",
        ["model", "seed", *_HEADINGS.values(), "resumed"],
        [
            [
                run.model,
                str(run.seed),
                *(_number(run.metrics[metric]) for metric in METRICS),
                "yes" if run.resumed else "",
            ]
            for summary in summaries
            for run in summary.runs
        ],
    )


def _number(value: float, digits: int = 4, sign: bool = False) -> str:
    return "–" if np.isnan(value) else f"{value:{'+' if sign else ''}.{digits}f}"


def notes(
    comparison: Comparison, summaries: Sequence[Summary], test: SequentialTest | None = None
) -> list[str]:
    """Return what a reader must know to judge the figures, as short paragraphs."""
    return [
        *_what_was_done(comparison, summaries),
        *_what_was_measured(comparison, summaries),
        *_what_it_cannot_tell(summaries, test),
    ]


def _what_was_done(comparison: Comparison, summaries: Sequence[Summary]) -> list[str]:
    budget, runs = comparison.budget, [run for summary in summaries for run in summary.runs]
    start = (
        f"start from the weights of {Path(budget.weights).name} that fit"
        if budget.weights
        else "start at random"
    )
    optimizers = " or ".join(sorted({run.optimizer for run in runs}))
    lines = [
        f"Data: {budget.data}. Epochs of each run: {budget.epochs}; image size {budget.imgsz} px unless the "
        f"model's name says otherwise, batch {budget.batch}, optimizer {optimizers}"
        f"{', in bfloat16' * budget.bf16}. Models built from a "
        f"YAML {start}; weights files start from their own weights.",
        "The measured weights are the EMA after the last epoch, never those of the best epoch on the "
        "validation images.",
    ]
    if any(run.resumed for run in runs):
        lines.append("Resumed runs were interrupted; they continued with different random numbers.")
    return lines


def _what_was_measured(comparison: Comparison, summaries: Sequence[Summary]) -> list[str]:
    used = frozenset(run.end_to_end for summary in summaries for run in summary.runs)
    head = _HEADS.get(
        used, "the NMS-free head for models that have one, otherwise with non-maximum suppression"
    )
    counts = count_by_size(comparison.truth)
    objects = ", ".join(f"{count} {size}" for size, count in counts.items())
    lines = [
        "AP is COCO's, averaged over IoU 0.50 to 0.95 (AP50: 0.50 only), with up to 300 detections per "
        f"image, on {len(comparison.truth['images'])} validation images with {objects} objects. Small is "
        "up to 32², tiny up to 16², large from 96² square pixels of the box in the original image. AR small "
        "is the recall of small objects, averaged over the same IoU thresholds.",
        f"Predictions, operations and latency are those of {head}.",
        "Parameters, GFLOPs and latency are those of the fused network. Latency is the median forward pass "
        f"of one image on {summaries[0].cost.machine}, without pre- and post-processing, on one thread if it "
        "is a CPU. The models take turns; the ratio is the median of the ratios to the baseline in the same "
        "turn.",
    ]
    if rare := [f"AP {size} on {count}" for size, count in counts.items() if 0 < count < _FEW]:
        lines.append(f"{' and '.join(rare)} objects is unreliable: there are too few of them.")
    return lines


def _what_it_cannot_tell(summaries: Sequence[Summary], test: SequentialTest | None) -> list[str]:
    return [
        _what_the_intervals_mean(summaries, test.confidence if test else CONFIDENCE),
        *([_how_runs_ended(test)] if test else []),
        "The seeds vary initialization, order and augmentation; they do not show how the models would "
        "compare on other images.",
        "Other changes may bring the same gain. To find out, add them to the comparison as controls: a "
        "larger stock model of equal GFLOPs, a P2 head (yolo26n-p2.yaml), larger images at equal latency "
        "(yolo26n.yaml@416), or for C3k2_ESC the block without its large kernel (suffix k3) or without the "
        "kernel made per image (static).",
    ]


def _how_runs_ended(test: SequentialTest) -> str:
    return (
        f"The runs of a model ended early once the interval of its {_HEADINGS[test.metric]} excluded zero or "
        f"lay within ±{test.margin:g}. This was tested after each seed from the second on, so every interval "
        f"here has the confidence {_percent(test.confidence)} (Bonferroni correction for {test.seeds - 1} "
        f"tests): with probability {CONFIDENCE:.0%} the true difference lies within all these intervals."
    )


def _percent(confidence: float) -> str:
    return f"{100 * confidence:.4g}%"


def _what_the_intervals_mean(summaries: Sequence[Summary], confidence: float) -> str:
    widths = [
        (difference.half_width, _HEADINGS[metric])
        for summary in summaries
        for metric, difference in summary.differences.items()
        if not np.isnan(difference.half_width)
    ]
    if not widths:
        return (
            "One seed gives no interval: two runs of the same model with different seeds also differ, by an "
            "unknown amount. Five seeds or more make a fair test."
        )
    seeds = max(len(summary.runs) for summary in summaries)
    widest = {heading: max(width for width, other in widths if other == heading) for _, heading in widths}
    blind_spots = ", ".join(f"{width:.3f} in {heading}" for heading, width in widest.items())
    return (
        f"The intervals are Student's t over {seeds} paired seeds at {_percent(confidence)} confidence; of "
        f"{len(widths)} such intervals about {(1 - confidence) * len(widths):.1f} exclude zero by chance "
        f"alone. True differences below about {blind_spots} cannot be distinguished from chance."
    )
