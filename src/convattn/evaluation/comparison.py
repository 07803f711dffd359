"""Several models on the same images: their scores, their time, and the places where they differ most."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from convattn.errors import InputError
from convattn.evaluation.lpips import LPIPS
from convattn.evaluation.metrics import luma, psnr_y
from convattn.evaluation.protocol import (
    Method,
    NetworkMethod,
    Pair,
    Score,
    choose_method,
    mean_scores,
    measure,
)

__all__ = ["Candidate", "Comparison", "Crop", "choose_candidates", "compare", "most_different"]


@dataclass(frozen=True)
class Candidate:
    """A model that takes part in a comparison.

    Attributes:
        name: What tables call it.
        method: How it upscales.
        parameters: Number of parameters; None for bicubic interpolation.
    """

    name: str
    method: Method
    parameters: int | None = None


@dataclass(frozen=True)
class Crop:
    """A place of an image, seen by every candidate; all images are ``uint8`` (3, H, W).

    Attributes:
        image: Name of the image.
        difference: How much the results differ there: mean standard deviation of luma.
        low: The low-resolution image at that place.
        results: What each candidate makes of it.
        high: The original.
        psnr: PSNR-Y of each result within the crop, in dB.
    """

    image: str
    difference: float
    low: Tensor
    results: list[Tensor]
    high: Tensor
    psnr: list[float]


@dataclass
class Comparison:
    """What a comparison measured.

    Attributes:
        candidates: Who took part.
        scale: The upscaling factor.
        scores: Of each candidate by name, of every image.
        seconds: That each candidate took for all images.
        crops: The places where the results differ most, the largest difference first.
    """

    candidates: list[Candidate]
    scale: float
    scores: dict[str, list[Score]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    crops: list[Crop] = field(default_factory=list)

    def means(self) -> list[tuple[str, Score]]:
        """Return the mean scores of each candidate on each set, the sets together."""
        rows = [(name, score) for name, scores in self.scores.items() for score in mean_scores(scores)]
        sets = list(dict.fromkeys(score.set for _, score in rows))
        return sorted(rows, key=lambda row: sets.index(row[1].set))


def choose_candidates(
    models: Sequence[str | None], scale: float | None = None, device: str = "auto"
) -> tuple[list[Candidate], float]:
    """Return the candidates of these names and the scale of all of them.

    Args:
        models: See :func:`convattn.evaluation.protocol.choose_method`.
        scale: May be omitted if the weights of the first model have only one, bicubic apart.
        device: "auto" or a device of torch.

    Raises:
        InputError: A model does not exist, or not at that scale, or is named twice.
    """
    if len(set(models)) < len(models):
        raise InputError("A model is named twice in the comparison; name each once.")
    candidates: dict[str | None, Candidate] = {}
    for model in sorted(models, key=lambda model: model == "bicubic"):  # the others may decide the scale
        method, scale, name = choose_method(model, scale, device)
        candidates[model] = Candidate(_short(name, models), method, _parameters(method))
    if scale is None:
        raise InputError("Name at least one model to compare.")
    return [candidates[model] for model in models], scale


def _short(name: str, models: Sequence[str | None]) -> str:
    """Return the name of a file without its folder, unless another model has the same."""
    short = Path(name).name
    return short if [Path(model or "").name for model in models].count(short) < 2 else name


def _parameters(method: Method) -> int | None:
    if not isinstance(method, NetworkMethod):
        return None
    return sum(tensor.numel() for tensor in method.network.parameters())


def compare(
    candidates: Sequence[Candidate],
    pairs: Iterable[Pair],
    scale: float,
    *,
    lpips: LPIPS | None = None,
    crops: int = 12,
    side: int = 32,
) -> Comparison:
    """Upscale every image by every candidate, measure the results and keep the most different places.

    Args:
        candidates: At least one.
        pairs: The images.
        scale: The upscaling factor.
        lpips: Measures LPIPS as well.
        crops: How many places to keep, one an image.
        side: Of these, in pixels of the low-resolution image.
    """
    comparison = Comparison(list(candidates), scale)
    for pair in pairs:
        results = []
        for candidate in candidates:
            start = time.perf_counter()
            results.append(candidate.method(pair.low))
            seconds = time.perf_counter() - start
            comparison.seconds[candidate.name] = comparison.seconds.get(candidate.name, 0) + seconds
            score = measure(results[-1], pair, scale, lpips)
            comparison.scores.setdefault(candidate.name, []).append(score)
        comparison.crops.append(_crop(pair, results, scale, side))
        comparison.crops.sort(key=lambda crop: -crop.difference)
        del comparison.crops[crops:]
    return comparison


def most_different(results: Sequence[Tensor], height: int, width: int) -> tuple[int, int, float]:
    """Find where results differ most.

    Args:
        results: ``uint8`` images (3, H, W) of one size.
        height: Of the place, at most H.
        width: Of the place, at most W.

    Returns:
        Its top and left, and the mean standard deviation of luma there.
    """
    deviation = torch.stack([luma(result) for result in results]).std(0, correction=0)
    means = F.avg_pool2d(deviation[None], (height, width), stride=1)[0]
    place = int(means.argmax())
    return *divmod(place, means.shape[1]), means.flatten()[place].item()


def _crop(pair: Pair, results: list[Tensor], scale: float, side: int) -> Crop:
    rows, columns = (min(side, length) for length in pair.low.shape[1:])
    height, width = round(rows * scale), round(columns * scale)
    height, width = min(height, pair.high.shape[1]), min(width, pair.high.shape[2])
    # Two candidates or more differ from each other; one differs from the original.
    top, left, difference = most_different(
        results if len(results) > 1 else [*results, pair.high], height, width
    )
    low_top, low_left = (
        min(round(start / scale), length - part)
        for start, length, part in zip((top, left), pair.low.shape[1:], (rows, columns), strict=True)
    )
    top, left = (
        min(round(start * scale), length - part)
        for start, length, part in zip((low_top, low_left), pair.high.shape[1:], (height, width), strict=True)
    )
    cut = (slice(None), slice(top, top + height), slice(left, left + width))
    low = pair.low[:, low_top : low_top + rows, low_left : low_left + columns]
    parts = [result[cut].clone() for result in results]  # copies, so that the whole images can go
    high = pair.high[cut].clone()
    psnr = [psnr_y(part, high, shave=0) for part in parts]
    return Crop(f"{pair.set}/{pair.image}", difference, low.clone(), parts, high, psnr)
