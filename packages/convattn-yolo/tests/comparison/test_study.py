"""Whole comparisons: what is trained, what is reported, and what is refused."""

import dataclasses
import math
import shutil
from pathlib import Path

import pytest
import torch

from convattn.errors import InputError
from convattn_yolo.comparison import (
    Budget,
    Comparison,
    Run,
    SequentialTest,
    notes,
    summarize,
    tables,
    write_report,
)

from .conftest import MODELS


def test_the_report_holds_every_training_and_its_figures(finished: Comparison) -> None:
    summaries = summarize(finished.runs(), finished.measure_costs("cpu"))
    page = write_report(finished, summaries).read_text()
    models, differences, runs = tables(summaries)
    assert [row[:2] for row in models.rows] == [["yolo26n", "2"], ["yolo26n@96", "2"]]
    assert summaries[0].cost.parameters == summaries[1].cost.parameters
    assert summaries[0].cost.gflops < summaries[1].cost.gflops
    assert {row[0] for row in differences.rows} == {"yolo26n@96"}
    assert len(runs.rows) == 4
    for table in (models, differences, runs):
        assert all(f"<td>{cell}</td>" in page for row in table.rows for cell in row)
    assert page.count("data:image/png;base64,") == 3
    assert 'src="http' not in page
    assert len((finished.folder / "runs.csv").read_text().splitlines()) == 5


def test_the_notes_say_what_was_done_and_what_it_cannot_tell(finished: Comparison) -> None:
    text = " ".join(notes(finished, summarize(finished.runs(), finished.measure_costs("cpu"))))
    assert "3 tiny, 3 small, 3 medium, 3 large" in text
    assert "2 paired seeds" in text
    assert "non-maximum suppression (nms=None" in text
    one_seed = summarize([run for run in finished.runs() if run.seed == 0], finished.measure_costs("cpu"))
    assert "One seed gives no interval" in " ".join(notes(finished, one_seed))
    assert all(row[-1] in {"no interval from one seed", "not measured"} for row in tables(one_seed)[1].rows)


def test_a_decided_model_needs_no_further_seeds(budget: Budget, tmp_path: Path, finished: Comparison) -> None:
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
    more = Comparison(MODELS, budget, 4, tmp_path)
    scores = {"yolo26n": 0.3, "yolo26n@96": 0.35}
    for run in finished.runs():
        run.metrics["AP_small"] = scores[run.model] + 1e-6 * run.seed * (run.model == "yolo26n")
        run.save(tmp_path / "runs" / run.model / f"seed-{run.seed}" / "run.json")
    assert not list(more.train_missing("cpu", SequentialTest(4)))
    assert "ended early" in " ".join(
        notes(more, summarize(more.runs(), more.measure_costs("cpu"), SequentialTest(4)), SequentialTest(4))
    )


def test_records_of_earlier_versions_lack_what_was_not_measured(finished: Comparison, tmp_path: Path) -> None:
    record = tmp_path / "run.json"
    run = finished.runs()[0]
    del run.metrics["AR_small"]
    run.save(record)
    assert math.isnan(Run.load(record).metrics["AR_small"])


def _weights(comparison: Comparison, training: str) -> torch.Tensor:
    file = comparison.folder / "runs" / training / "weights" / "last.pt"
    model = torch.load(file, weights_only=False)["model"]
    return torch.cat([parameter.flatten() for parameter in model.parameters()])


def test_only_what_is_missing_is_trained_again_and_comes_out_the_same(
    finished: Comparison, budget: Budget
) -> None:
    before, other_seed = _weights(finished, "yolo26n/seed-1"), _weights(finished, "yolo26n/seed-0")
    shutil.rmtree(finished.folder / "runs" / "yolo26n" / "seed-1")
    again = Comparison(MODELS, budget, 2, finished.folder)
    assert [(step.run.model, step.run.seed) for step in again.train_missing("cpu")] == [("yolo26n", 1)]
    assert torch.equal(_weights(again, "yolo26n/seed-1"), before)
    assert not torch.equal(before, other_seed)


def test_another_budget_or_another_model_of_the_name_is_refused(finished: Comparison, squares: Path) -> None:
    with pytest.raises(InputError, match=r"holds another comparison \(epochs was 2, now 3"):
        Comparison(MODELS, Budget(str(squares), epochs=3, imgsz=64, batch=2), 2, finished.folder)


def test_start_weights_must_be_weights(budget: Budget, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"yolo26n.yaml cannot serve as start weights"):
        Comparison(MODELS, dataclasses.replace(budget, weights="yolo26n.yaml"), 1, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_comparison_needs_two_different_models(budget: Budget, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least two models"):
        Comparison(["yolo26n.yaml"], budget, 1, tmp_path / "new")
    with pytest.raises(InputError, match="Several models are called yolo26n"):
        Comparison(["yolo26n.yaml", "yolo26n.yaml"], budget, 1, tmp_path / "new")
    assert not (tmp_path / "new").exists()
