import csv
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convattn.bench import runner


@pytest.fixture
def bench(command: Callable[..., Any]) -> Callable[..., Any]:
    """Runs ``convattn bench`` on one thread of the processor."""
    return lambda *words: command("bench", *words, "--device", "cpu", "--threads", "1")


@pytest.fixture
def _same_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of a process for each candidate."""
    monkeypatch.setattr(runner, "peak", lambda side, setting: 1000)


def test_a_table_a_csv_and_a_plot(bench: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    table, plot = tmp_path / "table.csv", tmp_path / "plot.png"
    candidates = ("attention", "--quick", "--size", "64x40", "--candidates", "naive,sdpa")
    status, out, _ = bench(*candidates, "--csv", table, "--plot", plot)
    assert status == 0
    assert "window attention, 32×32 pixels" in out
    assert "convattn bench attention --quick" in out
    naive, sdpa = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    assert (naive["name"], sdpa["name"]) == ("naive", "sdpa")
    assert float(naive["speedup"]) == float(naive["memory_divisor"]) == 1
    assert float(sdpa["memory_divisor"]) > 1
    assert float(naive["gmacs"]) == float(sdpa["gmacs"]) > 0
    assert naive["input"] == "1x64x40x64"
    assert naive["rounds"] == "3"
    assert naive["command"].startswith("convattn bench attention --quick")
    assert "1 thread" in naive["environment"]
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("_same_memory")
@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["conv-attention", "--size", "40"], ["torch", "ours", "attention"]),
        (
            ["networks", "--size", "96x64", "--candidates", "esc-nano,esc-nano@naive"],
            ["esc-nano", "esc-nano@naive"],
        ),
        (["networks", "--size", "32", "--scale", "2", "--candidates", "safmn, span"], ["safmn", "span"]),
        (
            ["networks", "--size", "64", "--candidates", "esc-nano@bf16,esc-nano@sdpa"],
            ["esc-nano@bf16", "esc-nano@sdpa"],
        ),
        (["scaling", "--quick", "--candidates", "esc-nano"], ["64×64", "128×128"]),
        (
            ["detector", "--size", "64x32", "--candidates", "yolo26n,yolo26n-C3k2_ESC"],
            ["yolo26n", "yolo26n-C3k2_ESC"],
        ),
        (
            ["training", "--quick", "--scale", "2"],
            ["esc-nano@torch", "esc-nano@torch-bf16", "esc-nano", "esc-nano@bf16"],
        ),
        (
            ["training", "--size", "32", "--candidates", "yolo26n,yolo26n-C3k2_ESC@torch"],
            ["yolo26n", "yolo26n-C3k2_ESC@torch"],
        ),
    ],
)
def test_every_subject(
    arguments: list[str],
    names: list[str],
    bench: Callable[..., Any],
    tmp_path: Path,
) -> None:
    pytest.importorskip("matplotlib")
    if "safmn" in arguments[-1]:
        pytest.importorskip("spandrel")
    if "detector" in arguments or "yolo" in arguments[-1]:
        pytest.importorskip("ultralytics")
    table = tmp_path / "table.csv"
    plot = tmp_path / "plot.svg"
    assert bench(*arguments, "--rounds", 1, "--csv", table, "--plot", plot).status == 0
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert [row["name"] for row in rows] == names
    assert all(float(row["latency_ms"]) > 0 and float(row["gmacs"]) > 0 for row in rows)
    assert not any(row["failure"] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["networks", "--candidates", "esc,swinir"],
            "There is no network named 'swinir' to measure; there are esc, ",
        ),
        (["networks", "--candidates", "esc@quick"], "There is no network named 'esc@quick'"),
        (
            ["attention", "--candidates", "triton"],
            "There is no candidate 'triton' here to measure; there are naive",
        ),
        (["networks", "--size", "0"], "0 is no size"),
        (["networks", "--size", "wide"], "wide is no size"),
        (["networks", "--size", "1281x720"], "cannot be the result of a network of scale 4"),
        (["detector", "--size", "100"], "multiples of 32"),
        (["detector", "--candidates", "yolo99z"], "yolo99z.yaml cannot be loaded"),
        (["training", "--candidates", "yolo99z"], "yolo99z.yaml cannot be loaded"),
        (["training", "--candidates", "yolo26n@quick"], "There is no variant 'quick' to measure"),
        (["training", "--candidates", "esc@quick"], "There is no network named 'esc@quick'"),
        (["attention", "--csv", "nowhere/table.csv"], "nowhere/table.csv cannot be written"),
        (["attention", "--csv", "."], ". cannot be written: it is a folder"),
        (["attention", "--plot", "nowhere/plot.png"], "nowhere/plot.png cannot be written"),
        (["attention", "--plot", "plot.txt"], "its name must end in .png, .svg or .pdf"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_measured(
    arguments: list[str],
    message: str,
    bench: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("convattn.bench.runner.measure", lambda *_: pytest.fail("measured"))
    if "detector" in arguments or "yolo" in arguments[-1]:
        pytest.importorskip("ultralytics")
    status, _, error = bench(*arguments)
    assert status == 1
    assert message in error
    assert error.startswith("convattn: ")
    assert error.count("\n") == 1


def test_no_gpu_is_one_sentence(command: Callable[..., Any]) -> None:
    ended = command("bench", "attention", "--device", "cuda:99")
    assert "The device cuda:99 is not available here" in ended.err


@pytest.mark.parametrize(
    ("arguments", "module", "extra"),
    [
        (["networks", "--candidates", "safmn"], "spandrel", "bench"),
        (["detector"], "ultralytics", "yolo"),
        (["attention", "--plot", "plot.png"], "matplotlib", "bench"),
    ],
)
def test_what_is_missing_is_named_with_its_extra(
    arguments: list[str],
    module: str,
    extra: str,
    bench: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for user in ("convattn.bench.networks", "convattn.bench.detectors", "convattn.cli.bench"):
        monkeypatch.setattr(importlib.import_module(user), "find_spec", lambda name: None)
    status, _, error = bench(*arguments)
    assert status == 1
    assert module in error.lower()
    assert f"convattn[{extra}]" in error
