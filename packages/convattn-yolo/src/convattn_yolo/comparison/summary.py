"""What the finished trainings of a comparison say, as numbers, tables and sentences."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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

_FEW = 50  # below it, one object more or less found moves AP by two points or more


@dataclass(frozen=True)
class Summary:
    """All that is known of one model.

    Attributes:
        model: Its name.
        runs: Its finished trainings.
        cost: What it costs to use.
        differences: For each metric, the paired difference to the baseline; empty for the baseline itself.
    """

    model: str
    runs: list[Run]
    cost: Cost
    differences: dict[str, PairedDifference]

    def mean(self, metric: str) -> float:
        """Mean of a metric over the trainings, in [0, 1]."""
        return float(np.mean([run.metrics[metric] for run in self.runs]))


@dataclass(frozen=True)
class Table:
    """A table of ready-made cells."""

    title: str
    header: list[str]
    rows: list[list[str]]

    def save_csv(self, file: Path) -> None:
        """Write it as comma-separated values."""
        with file.open("w", newline="") as stream:
            csv.writer(stream).writerows([self.header, *self.rows])


def summarize(
    runs: Sequence[Run], costs: Mapping[str, Cost], test: SequentialTest | None = None
) -> list[Summary]:
    """Sum the trainings up, model by model.

    Args:
        runs: Finished trainings.
        costs: What each model costs; the first is the baseline.
        test: The sequential test that ended the trainings, if there was one: its intervals are wider.
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
    """The models, their differences to the baseline, and every single training."""
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
        f"Paired difference to {summaries[0].model}, with its interval",
        ["model", "metric", "pairs", "difference", "from", "to", "reading"],
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
        "Every training",
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
    """What a reader must know to judge the figures, one sentence or a few each."""
    return [
        *_what_was_done(comparison, summaries),
        *_what_was_measured(comparison, summaries),
        *_what_it_cannot_tell(summaries, test),
    ]


def _what_was_done(comparison: Comparison, summaries: Sequence[Summary]) -> list[str]:
    budget, runs = comparison.budget, [run for summary in summaries for run in summary.runs]
    start = f"start from {Path(budget.weights).name}, where it fits" if budget.weights else "start at random"
    optimizers = " or ".join(sorted({run.optimizer for run in runs}))
    lines = [
        f"Data: {budget.data}. Every training: epochs {budget.epochs}, image size {budget.imgsz} px unless "
        f"the model's name says otherwise, batch {budget.batch}, optimizer {optimizers}. Models built from a "
        f"YAML {start}; weights files start from themselves.",
        "The weights measured are the averaged ones (EMA) after the last epoch, never the best on the "
        "validation images.",
    ]
    if any(run.resumed for run in runs):
        lines.append("Trainings marked as resumed were interrupted, and saw other random numbers afterwards.")
    return lines


def _what_was_measured(comparison: Comparison, summaries: Sequence[Summary]) -> list[str]:
    used = frozenset(run.end_to_end for summary in summaries for run in summary.runs)
    head = _HEADS.get(used, "the NMS-free head for models that have one, else with non-maximum suppression")
    counts = count_by_size(comparison.truth)
    objects = ", ".join(f"{count} {size}" for size, count in counts.items())
    lines = [
        f"AP is COCO's, averaged over IoU 0.50 to 0.95 (AP50: 0.50 only), with up to 300 detections a "
        f"image, on {len(comparison.truth['images'])} validation images with {objects} objects. Small is "
        "up to 32², tiny up to 16², large from 96² square pixels of the box in the original image. AR small "
        "is the recall of small objects, averaged over the same IoU.",
        f"Predictions, operations and latency are those of {head}.",
        "Parameters, GFLOPs and latency belong to the fused network. Latency is the median of forward passes "
        f"on one image on {summaries[0].cost.machine}, without pre- and post-processing, on one thread where "
        "it runs on a CPU; the models take turns, and the ratio is the median of the ratios to the baseline "
        "within a turn.",
    ]
    if rare := [f"AP {size} on {count}" for size, count in counts.items() if 0 < count < _FEW]:
        lines.append(f"{' and '.join(rare)} objects rests on too few to say much.")
    return lines


def _what_it_cannot_tell(summaries: Sequence[Summary], test: SequentialTest | None) -> list[str]:
    return [
        _what_the_intervals_mean(summaries, test.confidence if test else CONFIDENCE),
        *([_how_trainings_ended(test)] if test else []),
        "The seeds vary initialisation, order and augmentation; they say nothing about how other images "
        "than these would have turned out.",
        "A gain may also be had in other ways. Name such controls beside your model to find out: a larger "
        "stock model of as many GFLOPs, a P2 head (yolo26n-p2.yaml), or larger images at the same latency "
        "(yolo26n.yaml@416).",
    ]


def _how_trainings_ended(test: SequentialTest) -> str:
    return (
        f"The trainings of a model ended early once the interval of its {_HEADINGS[test.metric]} left out "
        f"zero or held nothing beyond ±{test.margin:g}. It was looked at after each seed from the second on, "
        f"so every interval here has the confidence {_percent(test.confidence)} (Bonferroni's correction for "
        f"{test.seeds - 1} looks): the chance that all looks hold the true difference is {CONFIDENCE:.0%}."
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
            "One seed gives no interval: two trainings of the same model with different seeds also differ, "
            "and nothing here says by how much. Five seeds or more make a fair test."
        )
    seeds = max(len(summary.runs) for summary in summaries)
    widest = {heading: max(width for width, other in widths if other == heading) for _, heading in widths}
    blind_spots = ", ".join(f"{width:.3f} in {heading}" for heading, width in widest.items())
    return (
        f"Intervals are Student's over {seeds} paired seeds, {_percent(confidence)} each; of {len(widths)} "
        f"such intervals about {(1 - confidence) * len(widths):.1f} leave out zero by chance alone. True "
        f"differences smaller than about {blind_spots} cannot be told from chance with these seeds."
    )
