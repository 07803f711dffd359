import csv
import io
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convattn.checkpoints.loading import save_network
from convattn.errors import InputError
from convattn.evaluation.protocol import (
    Score,
    bicubic,
    choose_method,
    downscale,
    evaluate,
    mean_scores,
    pairs,
    with_network,
)
from convattn.evaluation.tables import as_csv, as_json
from convattn.models.registry import build


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name, size in {"a.png": (31, 40), "b.png": (37, 26)}.items():
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "scale", "psnr"),
    [
        ("Set5", 2, 33.68),
        ("Set5", 3, 30.40),
        ("Set5", 4, 28.43),
        ("Set14", 2, 30.33),
        ("Set14", 3, 27.63),
        ("Set14", 4, 26.09),
        ("B100", 4, 25.96),
    ],
)
def test_bicubic_reaches_its_known_figures(shared_data: Path, name: str, scale: int, psnr: float) -> None:
    scores = evaluate(bicubic(scale), pairs(shared_data / "sr_bench" / name, scale), scale)
    assert mean_scores(scores)[0].psnr == pytest.approx(psnr, abs=0.01)


def test_published_low_resolution_files_can_be_given(shared_data: Path) -> None:
    folder = shared_data / "sr_bench" / "Set5"
    made = list(pairs(folder, 3, pipeline="uint8"))
    given = list(pairs(folder, 3, low=folder / "LR_bicubic" / "X3"))
    assert [pair.image for pair in given] == [pair.image for pair in made]
    assert all(torch.equal(one.low, other.low) for one, other in zip(made, given, strict=True))


def test_images_are_cropped_to_the_scale(folder: Path) -> None:
    first, second = pairs(folder, 3)
    assert (first.low.shape, first.high.shape) == ((3, 10, 13), (3, 30, 39))
    assert (second.low.shape, second.high.shape) == ((3, 12, 8), (3, 36, 24))
    (alone,) = pairs(folder / "a.png", 3)
    assert torch.equal(alone.low, first.low)
    assert alone.image == "a.png"


@given(st.integers(40, 200), st.integers(40, 200), st.floats(1, 8))
@settings(deadline=None, max_examples=20)
def test_any_scale_is_measured_where_both_images_are(height: int, width: int, scale: float) -> None:
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(f"{folder}/a.png")
        (pair,) = pairs(folder, scale)
    low, high = pair.low.shape[1:], pair.high.shape[1:]
    assert torch.equal(pair.high, image[:, : high[0], : high[1]])
    for small, large, side in zip(low, high, (height, width), strict=True):
        assert abs(large - small * scale) <= 0.5
        assert side - scale - 0.5 < large <= side  # no low-resolution pixel more would fit
    assert bicubic(scale)(pair.low).shape == pair.high.shape


def test_any_scale_through_a_network(folder: Path) -> None:
    (pair,) = pairs(folder / "a.png", 1.7)
    result = with_network(build("esc-nano-lte"), 1.7)(pair.low)
    assert (result.shape, result.dtype) == (pair.high.shape, torch.uint8)


def test_a_network_sees_reflected_windows_and_its_result_is_rounded() -> None:
    network = build("esc-nano", 2)
    window = network.features.window_size
    low = torch.randint(0, 256, (3, 9, 11), dtype=torch.uint8)
    padded = F.pad(low.float() / 255, (0, -11 % window, 0, -9 % window), mode="reflect")
    with torch.no_grad():
        expected = network(padded.unsqueeze(0))[0, :, :18, :22].clamp(0, 1) * 255
    result = with_network(network, 2)(low)
    assert result.dtype == torch.uint8
    assert (result - expected).abs().max() <= 0.5 + 1e-3


def test_bad_input_is_explained(folder: Path) -> None:
    (folder / "low").mkdir()
    Image.new("RGB", (5, 5)).save(folder / "low" / "ax2.png")
    with pytest.raises(InputError, match="has 5x5 pixels, but must have 20x15 at x2"):
        list(pairs(folder / "a.png", 2, low=folder / "low"))
    with pytest.raises(InputError, match=r"has no low-resolution version of b\.png"):
        list(pairs(folder / "b.png", 2, low=folder / "low"))
    with pytest.raises(InputError, match="too small to be measured at x8"):
        list(pairs(folder, 8))
    with pytest.raises(InputError, match="There is no file"):
        list(pairs(folder / "missing.png", 2))
    with pytest.raises(InputError, match="upscales by an arbitrary scale; give one"):
        choose_method("bicubic")
    save_network(build("esc-nano", 2), folder / "x2.safetensors")
    with pytest.raises(InputError, match="×2, not ×3"):
        choose_method(str(folder / "x2.safetensors"), 3)
    with pytest.raises(InputError, match=r"by 2, not by 2\.5; .*esc-nano-lte"):
        choose_method(str(folder / "x2.safetensors"), 2.5)
    with pytest.raises(InputError, match="from 1 to 30"):
        choose_method("bicubic", math.nan)
    assert choose_method(str(folder / "x2.safetensors"), device="cpu")[1] == 2


@pytest.mark.parametrize(("scale", "model"), [(2, "esc-nano"), (2.5, "esc-nano-lte"), (5, "esc-nano-lte")])
def test_weights_are_chosen_by_the_scale(scale: float, model: str) -> None:
    assert choose_method(None, scale, "cpu")[1:] == (scale, model)


def test_grayscale_is_measured_as_rgb(tmp_path: Path) -> None:
    grayscale = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    for mode in ("L", "RGB"):
        (tmp_path / mode).mkdir()
        Image.fromarray(grayscale).convert(mode).save(tmp_path / mode / "grayscale.png")
    one, other = (next(evaluate(bicubic(2), pairs(tmp_path / mode, 2), 2)) for mode in ("L", "RGB"))
    assert (one.psnr, one.ssim) == (other.psnr, other.ssim)


def test_tables_for_programs() -> None:
    scores = [
        ("net", Score("Set", "a, b.png", 30.0, 0.9)),
        ("net", Score("Set", "c.png", math.inf, 1.0, 0.1)),
    ]
    rows = list(csv.DictReader(io.StringIO(as_csv(scores))))
    assert [row["image"] for row in rows] == ["a, b.png", "c.png"]
    assert rows[0]["psnr_y"] == "30.0000"
    assert [row["lpips"] for row in rows] == ["", "0.100000"]
    assert [row["psnr"] for row in json.loads(as_json(scores))] == [30.0, None]


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_the_command(command: Callable[..., Any], folder: Path, form: str) -> None:
    status, out, _ = command("evaluate", folder, "--model", "bicubic", "--scale", 2, "--format", form)
    assert status == 0
    psnr = [score.psnr for score in evaluate(bicubic(2), pairs(folder, 2), 2)]
    if form == "table":
        assert f"{sum(psnr) / 2:.2f}" in out
        assert "mean of 2" in out
    else:
        rows = json.loads(out) if form == "json" else list(csv.DictReader(io.StringIO(out)))
        key = "psnr" if form == "json" else "psnr_y"
        assert [float(row[key]) for row in rows] == pytest.approx(psnr, abs=1e-4)


def test_double_and_byte_pipelines_differ_by_rounding_only() -> None:
    image = torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8)
    difference = downscale(image, 2).int() - downscale(image, 2, "uint8").int()
    assert difference.abs().max() <= 1
