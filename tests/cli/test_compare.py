import sys
from pathlib import Path

import pytest

pytest.importorskip("ultralytics")

from convattn.cli import main


def _compare(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The exit status of ``convattn compare`` with small trainings."""
    small = ["--epochs", 1, "--imgsz", 64, "--batch", 2, "--seeds", 1, "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["convattn", "compare", *map(str, [*arguments, *small])])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


def test_one_seed_is_reported_without_an_interval(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ["yolo26n.yaml", "yolo26n-C3k2_ESC-finest.yaml"]
    assert _compare(monkeypatch, *models, "--data", squares, "--out", tmp_path) == 0
    out = capsys.readouterr().out
    assert "[2/2] yolo26n-C3k2_ESC-finest, seed 0: AP" in out
    assert "no interval from one seed" in out
    assert "Five seeds or more" in out
    assert (tmp_path / "report.html").is_file()
    # A second call trains nothing and reports again.
    assert _compare(monkeypatch, *models, "--data", squares, "--out", tmp_path) == 0
    out = capsys.readouterr().out
    assert "seed 0: AP" not in out
    assert "no interval from one seed" in out
    # Another start is another comparison.
    start = tmp_path / "runs" / "yolo26n" / "seed-0" / "weights" / "last.pt"
    assert _compare(monkeypatch, *models, "--data", squares, "--out", tmp_path, "--weights", start) == 1
    assert "holds another comparison (weights was None" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("models", "data", "message"),
    [
        (["yolo26n.yaml", "yolo99z.yaml"], None, "The model yolo99z.yaml cannot be loaded"),
        (["yolo26n.yaml", "yolo26n-pose.yaml"], None, "yolo26n-pose.yaml is a model for the task pose"),
        (["yolo26n.yaml"], None, "needs two models at least"),
        (
            ["yolo26n.yaml", "yolo26s.yaml"],
            "nowhere/data.yaml",
            "The data set nowhere/data.yaml cannot be used",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    models: list[str],
    data: str | None,
    message: str,
    squares: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _compare(monkeypatch, *models, "--data", data or squares, "--out", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("convattn: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
