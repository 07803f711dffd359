from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ultralytics")


@pytest.fixture
def compare(command: Callable[..., Any]) -> Callable[..., Any]:
    """Runs ``convattn compare`` with small runs."""
    small = ["--epochs", 1, "--imgsz", 64, "--batch", 2, "--seeds", 1, "--device", "cpu"]
    return lambda *words: command("compare", *words, *small)


def test_one_seed_is_reported_without_an_interval(
    compare: Callable[..., Any], squares: Path, tmp_path: Path
) -> None:
    models = ["yolo26n.yaml", "yolo26n-C3k2_ESC-finest.yaml"]
    status, out, _ = compare(*models, "--data", squares, "--out", tmp_path)
    assert status == 0
    assert "[2/2] yolo26n-C3k2_ESC-finest, seed 0: AP" in out
    assert "no interval from one seed" in out
    assert "Five seeds or more" in out
    assert (tmp_path / "report.html").is_file()
    # A second call trains nothing and reports again.
    status, out, _ = compare(*models, "--data", squares, "--out", tmp_path)
    assert status == 0
    assert "seed 0: AP" not in out
    assert "no interval from one seed" in out
    # Another start is another comparison.
    start = tmp_path / "runs" / "yolo26n" / "seed-0" / "weights" / "last.pt"
    status, _, error = compare(*models, "--data", squares, "--out", tmp_path, "--weights", start)
    assert status == 1
    assert "holds another comparison (weights was None" in error


@pytest.mark.parametrize(
    ("models", "data", "message"),
    [
        (["yolo26n.yaml", "yolo99z.yaml"], None, "The model yolo99z.yaml cannot be loaded"),
        (["yolo26n.yaml", "yolo26n-pose.yaml"], None, "yolo26n-pose.yaml is a model for the task pose"),
        (["yolo26n.yaml"], None, "needs at least two models"),
        (
            ["yolo26n.yaml", "yolo26s.yaml"],
            "nowhere/data.yaml",
            "The dataset nowhere/data.yaml cannot be used",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    models: list[str],
    data: str | None,
    message: str,
    compare: Callable[..., Any],
    squares: Path,
    tmp_path: Path,
) -> None:
    status, _, error = compare(*models, "--data", data or squares, "--out", tmp_path / "out")
    assert status == 1
    assert message in error
    assert error.startswith("convattn: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
