"""Scores as tables for people and for programs."""

import csv
import io
import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from convattn.evaluation.protocol import Score

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["as_csv", "as_json", "as_table"]


def as_table(scores: Iterable[tuple[str, Score]], title: str) -> "Table":
    """Return a table of scores, each with the name of its model; LPIPS has a column if any was measured."""
    from rich.table import Table

    rows = list(scores)
    with_lpips = any(score.lpips is not None for _, score in rows)
    several = len({model for model, _ in rows}) > 1
    table = Table(*(["model"] if several else []), "set", "image", title=title)
    for heading in ("PSNR-Y (dB)", "SSIM-Y", *(["LPIPS"] if with_lpips else [])):
        table.add_column(heading, justify="right")
    for model, score in rows:
        distance = "" if score.lpips is None else f"{score.lpips:.4f}"
        figures = f"{score.psnr:.2f}", f"{score.ssim:.4f}", *([distance] if with_lpips else [])
        table.add_row(*([model] if several else []), score.set, score.image, *figures)
    return table


def as_csv(scores: Iterable[tuple[str, Score]]) -> str:
    """Return a line for each score under a heading."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["model", "set", "image", "psnr_y", "ssim_y", "lpips"])
    for model, score in scores:
        distance = "" if score.lpips is None else f"{score.lpips:.6f}"
        lines.writerow([model, score.set, score.image, f"{score.psnr:.4f}", f"{score.ssim:.6f}", distance])
    return text.getvalue()


def as_json(scores: Iterable[tuple[str, Score]]) -> str:
    """Return the scores as a JSON list of objects; the infinite PSNR of equal images is null."""
    rows = [
        {"model": model} | asdict(score) | {"psnr": score.psnr if math.isfinite(score.psnr) else None}
        for model, score in scores
    ]
    return json.dumps(rows, indent=2) + "\n"
