"""Comparisons: their scores, the places where models differ most, and the page."""

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from convattn.errors import InputError
from convattn.evaluation.comparison import Candidate, choose_candidates, compare, most_different
from convattn.evaluation.html import as_html
from convattn.evaluation.metrics import luma
from convattn.evaluation.protocol import Pair, bicubic, evaluate, mean_scores


def pair_of(name: str, low: Tensor, scale: int) -> Pair:
    return Pair("Set", name, low, bicubic(scale)(low))


def spoiled(height: int, width: int) -> Callable[[Tensor], Tensor]:
    """Bicubic interpolation ×2, whose result is white in a square at that place."""

    def method(low: Tensor) -> Tensor:
        result = bicubic(2)(low)
        result[:, height : height + 20, width : width + 20] = 255
        return result

    return method


@pytest.fixture
def pairs() -> list[Pair]:
    images = torch.randint(0, 128, (3, 3, 40, 56), dtype=torch.uint8)
    return [pair_of(f"{number}.png", image, 2) for number, image in enumerate(images)]


def test_scores_are_those_of_each_alone(pairs: list[Pair]) -> None:
    candidates = [Candidate("one", bicubic(2)), Candidate("other", spoiled(10, 10))]
    comparison = compare(candidates, pairs, 2)
    for candidate in candidates:
        assert comparison.scores[candidate.name] == list(evaluate(candidate.method, pairs, 2))
        assert comparison.seconds[candidate.name] > 0
    means = [(name, *mean_scores(scores)) for name, scores in comparison.scores.items()]
    assert comparison.means() == means


def test_the_place_is_where_they_differ_most() -> None:
    results = torch.randint(0, 256, (3, 3, 19, 23), dtype=torch.uint8)
    top, left, difference = most_different(results, 6, 5)
    deviations = luma(results).numpy().std(0)
    places = {
        (y, x): deviations[y : y + 6, x : x + 5].mean() for y in range(19 - 6 + 1) for x in range(23 - 5 + 1)
    }
    assert (top, left) == max(places, key=places.__getitem__)
    assert difference == pytest.approx(max(places.values()))


def test_crops_show_the_same_place_of_every_image(pairs: list[Pair]) -> None:
    candidates = [Candidate("one", bicubic(2)), Candidate("other", spoiled(44, 60))]
    (crop, _) = compare(candidates, pairs, 2, crops=2, side=16).crops
    pair = next(pair for pair in pairs if crop.image == f"Set/{pair.image}")
    assert crop.low.shape == (3, 16, 16)
    assert all(part.shape == (3, 32, 32) for part in [*crop.results, crop.high])
    assert (crop.results[1] == 255).all(0).sum() >= 300  # most of the white square
    places = [
        (top, left)
        for top in range(25)
        for left in range(41)
        if torch.equal(pair.low[:, top : top + 16, left : left + 16], crop.low)
    ]
    assert len(places) == 1
    top, left = (2 * start for start in places[0])
    assert torch.equal(pair.high[:, top : top + 32, left : left + 32], crop.high)
    assert torch.equal(bicubic(2)(pair.low)[:, top : top + 32, left : left + 32], crop.results[0])


def test_the_most_different_images_come_first(pairs: list[Pair]) -> None:
    def worse_with_brightness(low: Tensor) -> Tensor:
        result = bicubic(2)(low)
        return result + (40 if torch.equal(low, pairs[1].low) else 1)

    candidates = [Candidate("one", bicubic(2)), Candidate("other", worse_with_brightness)]
    crops = compare(candidates, pairs, 2, crops=2).crops
    assert len(crops) == 2
    assert crops[0].image == "Set/1.png"


@pytest.mark.parametrize("scale", [1.7, 3])
@pytest.mark.parametrize("side", [8, 500])
def test_every_scale_and_side(scale: float, side: int) -> None:
    low = torch.randint(0, 256, (3, 21, 34), dtype=torch.uint8)
    pair = Pair("Set", "a.png", low, bicubic(scale)(low))
    (crop,) = compare([Candidate("bicubic", bicubic(scale))], [pair], scale, side=side).crops
    assert crop.low.shape[1:] == (min(side, 21), min(side, 34))
    assert crop.high.shape == crop.results[0].shape


def test_the_page_holds_every_crop_and_escapes_names(pairs: list[Pair]) -> None:
    candidates = [Candidate("<b>one", bicubic(2), 1_200_000), Candidate("other", spoiled(0, 0))]
    comparison = compare(candidates, pairs, 2)
    page = as_html(comparison)
    assert "<b>one" not in page
    assert "&lt;b&gt;one" in page
    assert "1.20 M" in page
    assert "http" not in page.replace("http-equiv", "")  # needs no other file
    sources = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(sources) == 3 * 4
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(sources[1]))))
    assert np.array_equal(shown, comparison.crops[0].results[0].permute(1, 2, 0).numpy())


def test_candidates_have_one_scale() -> None:
    candidates, scale = choose_candidates(["bicubic", "esc-nano-real"], None, "cpu")
    assert scale == 4
    assert [candidate.name for candidate in candidates] == ["bicubic", "esc-nano-real"]
    assert candidates[0].parameters is None
    assert candidates[1].parameters
    with pytest.raises(InputError, match="exists at scale ×4"):
        choose_candidates(["esc-nano-real"], 2)
    with pytest.raises(InputError, match="named twice"):
        choose_candidates(["bicubic", "bicubic"], 2)
    with pytest.raises(InputError, match="at least one"):
        choose_candidates([])


@pytest.fixture
def real_set(tmp_path: Path) -> Path:
    """A set whose low-resolution images are not those that bicubic interpolation would make."""
    for name, side in (("LR", 20), ("HR", 80)):
        (tmp_path / "real" / name).mkdir(parents=True)
        pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "real" / name / "a.png")
    return tmp_path / "real"


def test_the_command_compares(command: Callable[..., Any], real_set: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    words = ("evaluate", real_set, "--compare", "esc-nano-real,bicubic", "--compare", "esc-nano")
    ended = command(*words, "--html", page, "--device", "cpu", "--lpips", "off")
    assert ended.status == 0
    for name in ("esc-nano-real", "bicubic", "esc-nano"):
        assert name in ended.out
        assert name in page.read_text(encoding="utf-8")


def test_given_low_resolution_images_are_used(command: Callable[..., Any], real_set: Path) -> None:
    def psnr(*words: object) -> str:
        ended = command("evaluate", *words, "-m", "bicubic", "-s", 4, "--format", "csv", "--lpips", "off")
        return ended.out.splitlines()[1].split(",")[3]

    given, high, low = psnr(real_set), real_set / "HR", real_set / "LR"
    assert given == psnr(high, "--low", low)
    assert given != psnr(high)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "bicubic", "--compare", "esc-nano"], "--model or --compare"),
        (["--model", "bicubic", "--low", "a", "--low", "b"], "one --low for each source; there are 2 for 1"),
        (["--compare", "bicubic", "-s", "4", "--html", "nowhere/page.html"], "cannot be written"),
    ],
)
def test_mistakes_are_one_sentence(
    command: Callable[..., Any], real_set: Path, words: list[str], message: str
) -> None:
    ended = command("evaluate", real_set, *words, "--lpips", "off")
    assert ended.status == 1
    assert message in ended.err
    assert ended.err.strip().count("\n") == 0
