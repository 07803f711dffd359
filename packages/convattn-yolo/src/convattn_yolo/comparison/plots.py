"""Plots for the report of a comparison."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageOps

from convattn_yolo.comparison.accuracy import SIZES
from convattn_yolo.comparison.summary import Summary

__all__ = ["plot_accuracy_by_latency", "plot_accuracy_by_size", "plot_examples"]


def plot_accuracy_by_latency(summaries: Sequence[Summary]) -> Figure:
    """Plot AP and AP small against latency: a small dot for each run, a large dot for their mean."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), ("AP", "AP_small"), strict=True):
        for index, summary in enumerate(summaries):
            latency, color = summary.cost.latency, f"C{index}"
            values = [run.metrics[metric] for run in summary.runs]
            axes.scatter([latency] * len(values), values, s=12, color=color, alpha=0.6)
            axes.scatter([latency], [np.mean(values)], s=70, color=color, label=summary.model)
        axes.set(xlabel="latency of a forward pass (ms)", ylabel=metric.replace("_", " "))
        _finish(axes)
    return figure


def plot_accuracy_by_size(summaries: Sequence[Summary]) -> Figure:
    """Plot AP by object size: a dot for each run, a bar for their mean."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    step = 0.8 / len(summaries)
    for index, summary in enumerate(summaries):
        for place, size in enumerate(SIZES):
            x = place - 0.4 + step * (index + 0.5)
            values = [run.metrics[f"AP_{size}"] for run in summary.runs]
            label = summary.model if place == 0 else None
            axes.bar(x, np.mean(values), width=0.9 * step, color=f"C{index}", alpha=0.4, label=label)
            axes.scatter([x] * len(values), values, s=12, color=f"C{index}")
    axes.set(
        xlim=(-0.5, len(SIZES) - 0.5),
        xticks=range(len(SIZES)),
        xticklabels=list(SIZES),
        xlabel="object size",
        ylabel="AP",
    )
    _finish(axes)
    return figure


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")


def plot_examples(summaries: Sequence[Summary], truth: Mapping[str, Any], names: Mapping[int, str]) -> Figure:
    """Show validation images side by side: the labels, then the detections of each model's first run."""
    columns = {"labels": _labels(truth, list(summaries[0].runs[0].examples))}
    columns |= {summary.model: summary.runs[0].examples for summary in summaries}
    files = list(columns["labels"])
    figure = Figure(figsize=(4 * len(columns), 3.2 * len(files)), layout="constrained")
    grid = figure.subplots(len(files), len(columns), squeeze=False)
    for row, file in zip(grid, files, strict=True):
        image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
        for axes, (title, boxes) in zip(row, columns.items(), strict=True):
            axes.imshow(image)
            axes.set(xticks=[], yticks=[], title=title)
            for left, top, right, bottom, cls, *_ in boxes[file]:
                box = Rectangle(
                    (left, top), right - left, bottom - top, fill=False, edgecolor=f"C{int(cls) % 10}"
                )
                axes.add_patch(box)
    _add_class_legend(
        figure, {int(box[4]) for boxes in columns.values() for file in files for box in boxes[file]}, names
    )
    return figure


def _labels(truth: Mapping[str, Any], files: Sequence[str]) -> dict[str, list[list[float]]]:
    """Return the labeled boxes of some images: left, top, right, bottom, class."""
    files_by_id = {
        image["id"]: image["file_name"] for image in truth["images"] if image["file_name"] in files
    }
    boxes: dict[str, list[list[float]]] = {file: [] for file in files}
    for annotation in truth["annotations"]:
        if file := files_by_id.get(annotation["image_id"]):
            left, top, width, height = annotation["bbox"]
            boxes[file].append([left, top, left + width, top + height, annotation["category_id"]])
    return boxes


def _add_class_legend(figure: Figure, classes: set[int], names: Mapping[int, str]) -> None:
    handles = [Rectangle((0, 0), 1, 1, fill=False, edgecolor=f"C{index % 10}") for index in sorted(classes)]
    if handles:
        labels = [names[index] for index in sorted(classes)]
        figure.legend(handles, labels, loc="outside lower center", ncols=8, frameon=False)
