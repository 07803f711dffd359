"""A comparison as one HTML page that needs no other file."""

import base64
from importlib.resources import files
from typing import Any

import jinja2
import pyvips
from torch import Tensor

from convattn import __version__
from convattn.evaluation.comparison import Comparison, Crop
from convattn.evaluation.protocol import Score

__all__ = ["as_html"]


def as_html(comparison: Comparison) -> str:
    """Return a page with a table of the scores and the crops of every model side by side."""
    template = files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(
        names=[candidate.name for candidate in comparison.candidates],
        scale=f"{comparison.scale:g}",
        sets=_sets(comparison),
        with_lpips=any(score.lpips is not None for _, score in comparison.means()),
        rows=_rows(comparison),
        crops=[_figure(crop, comparison) for crop in comparison.crops],
        version=__version__,
    )


def _sets(comparison: Comparison) -> list[str]:
    return list(dict.fromkeys(score.set for _, score in comparison.means()))


def _rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the table: a row for each candidate, with its mean scores by set; the best are marked."""
    scores = {(name, score.set): score for name, score in comparison.means()}
    best = {name: _best([scores[row, name] for row in comparison.scores]) for name in _sets(comparison)}
    images = len(next(iter(comparison.scores.values()), []))
    return [
        {
            "name": candidate.name,
            "parameters": f"{candidate.parameters / 1e6:.2f} M" if candidate.parameters else "",
            "seconds": f"{comparison.seconds[candidate.name] / images:.3g}",
            "scores": [_cells(scores[candidate.name, name], best[name]) for name in _sets(comparison)],
        }
        for candidate in comparison.candidates
    ]


def _best(scores: list[Score]) -> tuple[float, float, float | None]:
    distances = [score.lpips for score in scores if score.lpips is not None]
    return (
        max(score.psnr for score in scores),
        max(score.ssim for score in scores),
        min(distances) if distances else None,
    )


def _cells(score: Score, best: tuple[float, float, float | None]) -> list[tuple[str, bool]]:
    """Return the text of each figure, and whether it is the best of all candidates."""
    texts = f"{score.psnr:.2f}", f"{score.ssim:.4f}", "" if score.lpips is None else f"{score.lpips:.4f}"
    values = score.psnr, score.ssim, score.lpips
    cells = [(text, value == top) for text, value, top in zip(texts, values, best, strict=True)]
    return cells if best[2] is not None else cells[:2]


def _figure(crop: Crop, comparison: Comparison) -> dict[str, Any]:
    names = [candidate.name for candidate in comparison.candidates]
    best = max(crop.psnr)
    results = [
        {"title": name, "note": f"{psnr:.2f} dB", "best": psnr == best, "source": _data_url(result)}
        for name, result, psnr in zip(names, crop.results, crop.psnr, strict=True)
    ]
    low = {"title": "input", "note": "", "best": False, "source": _data_url(crop.low)}
    high = {"title": "original", "note": "", "best": False, "source": _data_url(crop.high)}
    return {"image": crop.image, "cells": [low, *results, high]}


def _data_url(image: Tensor) -> str:
    """Return a ``uint8`` image (3, H, W) as the address of a lossless PNG inside the page."""
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    png = pyvips.Image.new_from_array(pixels, interpretation="srgb").write_to_buffer(".png")
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
