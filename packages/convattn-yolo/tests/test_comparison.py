import dataclasses
import math
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

pytest.importorskip("ultralytics")

from convattn.errors import InputError
from convattn_yolo.comparison import (
    Budget,
    Comparison,
    Run,
    SequentialTest,
    notes,
    summarize,
    tables,
    training,
    write_report,
)
from convattn_yolo.comparison.accuracy import coco_format, coco_metrics, count_by_size, ground_truth
from convattn_yolo.comparison.cost import measure_costs
from convattn_yolo.comparison.dataset import resolve_dataset
from convattn_yolo.comparison.statistics import paired_difference
from convattn_yolo.comparison.training import find_candidate, train

# Statistics


@given(st.floats(0.01, 0.999), st.lists(st.floats(-1, 1), min_size=2, max_size=2))
def test_interval_of_two_pairs_in_closed_form(confidence: float, values: list[float]) -> None:
    """With one degree of freedom, Student's quantile is a tangent."""
    quantile = math.tan(math.pi / 2 * confidence)
    expected = quantile * abs(values[0] - values[1]) / 2
    assert paired_difference([0, 0], values, confidence).half_width == pytest.approx(expected)


@pytest.mark.parametrize(("pairs", "t"), [(4, 3.18245), (5, 2.77645), (10, 2.26216), (31, 2.04227)])
def test_intervals_agree_with_the_table_of_students_t(pairs: int, t: float) -> None:
    values = np.random.default_rng(pairs).normal(size=pairs)
    half_width = paired_difference(np.zeros(pairs).tolist(), values.tolist()).half_width
    assert half_width == pytest.approx(t * values.std(ddof=1) / math.sqrt(pairs), rel=5e-6)


def test_paired_difference_by_hand() -> None:
    difference = paired_difference([0.5, 0.1, 0.3], [0.51, 0.12, 0.33])
    assert difference.mean == pytest.approx(0.02)
    assert difference.half_width == pytest.approx(4.302653 * 0.01 / math.sqrt(3), rel=1e-6)
    assert difference.verdict == "no difference shown"
    assert paired_difference([0.5, 0.1, 0.3], [0.61, 0.22, 0.43]).verdict == "higher"
    assert paired_difference([0.61, 0.22, 0.43], [0.5, 0.1, 0.3]).verdict == "lower"


def test_intervals_hold_the_true_difference_as_often_as_they_say() -> None:
    draws = np.random.default_rng(0).normal(0.1, 1, (4000, 3))
    intervals = [paired_difference(np.zeros(3), draw) for draw in draws]
    held = np.mean([interval.low <= 0.1 <= interval.high for interval in intervals])
    assert held == pytest.approx(0.95, abs=0.01)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6))
def test_nothing_is_higher_or_lower_where_the_interval_holds_zero(pairs: list[tuple[float, float]]) -> None:
    difference = paired_difference(*zip(*pairs, strict=True))
    if len(pairs) == 1 or difference.low <= 0 <= difference.high:
        assert difference.verdict not in {"higher", "lower"}
    else:
        assert difference.verdict == ("higher" if difference.mean > 0 else "lower")


# Ending early

SEEDS = 5


@pytest.mark.parametrize(
    ("differences", "decided"),
    [
        ([0.02], False),  # one pair leaves everything open
        ([0.02, 0.021, 0.019, 0.0205], True),
        ([-0.02, -0.021, -0.019, -0.0205], True),
        ([0.0001, -0.0001, 0.0002, 0.0], True),  # nothing that matters
        ([0.02, 0.05, -0.01, 0.03], False),
    ],
)
def test_a_sequential_test_ends_what_is_decided(differences: list[float], decided: bool) -> None:
    baseline = [0.3, 0.31, 0.29, 0.3][: len(differences)]
    assert SequentialTest(SEEDS).is_decided(baseline, np.add(baseline, differences).tolist()) is decided


def test_looking_after_every_seed_does_not_raise_false_alarms() -> None:
    test, draws = SequentialTest(SEEDS, margin=0), np.random.default_rng(1).normal(0, 1, (2000, SEEDS))
    alarms = [
        any(test.is_decided([0.0] * n, draw[:n].tolist()) for n in range(2, SEEDS + 1)) for draw in draws
    ]
    assert np.mean(alarms) < 0.06


# AP by size


def _truth(*boxes: tuple[float, float, float, float]) -> dict:
    """One image of 400×300 with boxes of one class: left, top, width, height in pixels."""
    rows = [((x + w / 2) / 400, (y + h / 2) / 300, w / 400, h / 300) for x, y, w, h in boxes]
    label = {
        "im_file": "a/007.jpg",
        "shape": (300, 400),
        "cls": np.zeros((len(rows), 1)),
        "bboxes": np.array(rows),
    }
    return coco_format([label], {0: "thing"})


def _detection(box: tuple[float, float, float, float], score: float = 0.9) -> dict:
    return {"image_id": 1, "category_id": 0, "bbox": list(box), "score": score}


TINY = (100, 10, 9, 7)
SMALL, MEDIUM, LARGE = (10, 10, 20, 20), (50, 50, 40, 60), (150, 100, 200, 150)


def test_labels_become_boxes_in_pixels_of_the_original_image() -> None:
    truth = _truth(SMALL, MEDIUM)
    assert truth["images"] == [{"id": 1, "file_name": "a/007.jpg", "width": 400, "height": 300}]
    assert [annotation["bbox"] for annotation in truth["annotations"]] == [
        pytest.approx(SMALL),
        pytest.approx(MEDIUM),
    ]
    assert [annotation["area"] for annotation in truth["annotations"]] == pytest.approx([400, 2400])


def test_objects_are_counted_by_their_area() -> None:
    truth = _truth(SMALL, SMALL, MEDIUM, (0, 0, 33, 32), (0, 0, 97, 96))
    assert count_by_size(truth) == {"tiny": 0, "small": 2, "medium": 2, "large": 1}
    assert count_by_size(_truth(SMALL, TINY)) == {"tiny": 1, "small": 2, "medium": 0, "large": 0}


def test_average_precision_by_size() -> None:
    found = coco_metrics(_truth(SMALL, MEDIUM, LARGE), [_detection(SMALL), _detection(LARGE, 0.8)])
    # Two of three are found without a mistake: precision is 1 at the recall points 0.00 to 0.66, 0 above.
    expected = {"AP": 67 / 101, "AP50": 67 / 101, "AP_small": 1, "AP_medium": 0, "AP_large": 1, "AR_small": 1}
    assert found == pytest.approx(expected | {"AP_tiny": math.nan}, nan_ok=True)


def test_tiny_objects_and_the_recall_of_small_ones() -> None:
    found = coco_metrics(_truth(TINY, SMALL, MEDIUM), [_detection(TINY), _detection(MEDIUM, 0.8)])
    # One of two small objects is found without a mistake: precision is 1 at the recall points 0.00 to 0.50.
    assert found["AP_tiny"] == pytest.approx(1)
    assert found["AP_small"] == pytest.approx(51 / 101)
    assert found["AR_small"] == pytest.approx(0.5)


def test_average_precision_over_overlaps() -> None:
    left, top, width, height = LARGE
    overlap = _detection((left, top, 0.72 * width, height))  # good enough for 0.50, 0.55, 0.60, 0.65 and 0.70
    found = coco_metrics(_truth(LARGE), [overlap])
    assert (found["AP"], found["AP50"], found["AP_large"]) == pytest.approx((0.5, 1, 0.5))


def test_false_positives_of_another_size_do_not_count() -> None:
    found = coco_metrics(_truth(SMALL), [_detection(LARGE, 0.95), _detection(SMALL)])
    assert found["AP_small"] == pytest.approx(1)
    assert found["AP"] == pytest.approx(0.5)


def test_without_detections_or_without_objects_of_a_size() -> None:
    found = coco_metrics(_truth(SMALL), [])
    assert (found["AP"], found["AP_small"]) == (0, 0)
    assert math.isnan(found["AP_large"])


def test_images_with_the_same_name_are_refused() -> None:
    labels = [
        {"im_file": file, "shape": (9, 9), "cls": np.zeros((1, 1)), "bboxes": np.full((1, 4), 0.5)}
        for file in ("a/7.jpg", "b/007.png")
    ]
    with pytest.raises(InputError, match=r"a/7.jpg and b/007.png have the same name"):
        coco_format(labels, {0: "thing"})


def test_labels_without_objects_are_refused() -> None:
    with pytest.raises(InputError, match="no labeled objects"):
        _truth()


# Data sets


def test_a_relative_path_is_taken_from_the_folder_of_the_data_yaml(
    squares: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    data = resolve_dataset(squares)
    assert Path(data["val"]) == squares.parent / "images" / "val"
    assert count_by_size(ground_truth(data)) == {"tiny": 3, "small": 3, "medium": 3, "large": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "gone.yaml cannot be used"),
        ("path: .\ntrain: nowhere\nval: nowhere\nnames: [a]\n", "cannot be used: .*nowhere"),
        ("path: /nowhere\ntrain: a\nval: b\nnames: [a]\n", "cannot be used: .*/nowhere"),
        ("train: images\nnames: [a]\n", "cannot be used: .*'val:' key missing"),
        ("- a\n- b\n", "is not a data.yaml"),
        ("a: [\n", "cannot be used"),
    ],
)
def test_unusable_data_sets(content: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "gone.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=message) as error:
        resolve_dataset(file)
    assert "\n" not in str(error.value)


# Models


@pytest.mark.parametrize(
    ("specification", "name", "side"),
    [
        ("yolo26n.yaml", "yolo26n", 64),
        ("yolo26n.yaml@96", "yolo26n@96", 96),
        ("yolo26n.yaml@64", "yolo26n", 64),
    ],
)
def test_models_may_have_a_image_size_of_their_own(specification: str, name: str, side: int) -> None:
    candidate = find_candidate(specification, 64)
    assert (candidate.name, candidate.source, candidate.imgsz) == (name, "yolo26n.yaml", side)


def test_unusable_models() -> None:
    with pytest.raises(InputError, match=r"yolo99z.yaml cannot be loaded"):
        find_candidate("yolo99z.yaml", 64)
    with pytest.raises(InputError, match="model for the task segment"):
        find_candidate("yolo26n-seg.yaml", 64)


def test_costs_are_relative_to_the_first_network() -> None:
    small = nn.Conv2d(3, 8, 3, padding=1)
    large = nn.Sequential(small, *(nn.Conv2d(8, 8, 3, padding=1) for _ in range(20)))
    costs = measure_costs({"small": (small, 64), "large": (large, 64)}, rounds=5)
    assert costs["small"].latency_ratio == 1
    assert costs["large"].latency_ratio > 1
    assert costs["small"].parameters == 8 * 3 * 9 + 8


# Whole comparisons


@pytest.fixture(scope="module")
def budget(squares: Path) -> Budget:
    return Budget(str(squares), epochs=2, imgsz=64, batch=2)


MODELS = ["yolo26n.yaml", "yolo26n.yaml@96"]


@pytest.fixture(scope="module")
def finished(budget: Budget, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    comparison = Comparison(MODELS, budget, 2, tmp_path_factory.mktemp("comparison"))
    progress = list(comparison.train_missing("cpu"))
    assert [(step.run.model, step.run.seed, step.done, step.total) for step in progress] == [
        ("yolo26n", 0, 1, 4),
        ("yolo26n@96", 0, 2, 4),
        ("yolo26n", 1, 3, 4),
        ("yolo26n@96", 1, 4, 4),
    ]
    assert progress[0].seconds_left > progress[-1].seconds_left == 0
    return comparison


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


def test_no_image_loses_its_detections_on_a_slow_machine(
    finished: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics' non-maximum suppression drops what is left of a batch after some seconds."""
    measured = []
    monkeypatch.setattr(training, "coco_metrics", lambda _, detections: measured.extend(detections))
    monkeypatch.setattr("ultralytics.utils.nms.time", SimpleNamespace(time=count(step=100).__next__))
    folder = finished.folder / "runs" / "yolo26n" / "seed-0"
    data = finished.folder / "data.yaml"
    training.evaluate(finished.candidates[0], finished.budget, data, folder, "cpu", finished.truth)
    assert {detection["image_id"] for detection in measured} == {1, 2, 3}


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


def test_pairs_see_the_same_images_in_the_same_order(
    finished: Comparison, budget: Budget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.models.yolo.detect import DetectionTrainer

    seen: list[torch.Tensor] = []
    preprocess = DetectionTrainer.preprocess_batch

    def watch(trainer: DetectionTrainer, batch: dict) -> dict:
        seen.append(batch["img"].clone())
        return preprocess(trainer, batch)

    monkeypatch.setattr(DetectionTrainer, "preprocess_batch", watch)
    data = finished.folder / "data.yaml"
    for model in ("yolo26n.yaml", "yolo26n-C3k2_ESC.yaml"):
        train(find_candidate(model, 64), 0, budget, data, tmp_path / model, "cpu")
    stock, ours = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert len(stock) == 4  # two epochs of two batches
    assert all(torch.equal(*pair) for pair in zip(stock, ours, strict=True))
    assert not torch.equal(stock[0], stock[2])


def test_training_in_bfloat16_keeps_float32_weights(
    finished: Comparison, budget: Budget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.utils.loss import v8DetectionLoss

    seen: set[torch.dtype] = set()
    convolution, loss = torch.nn.functional.conv2d, v8DetectionLoss.loss

    def watch(image: torch.Tensor, *args: object) -> torch.Tensor:
        result = convolution(image, *args)
        seen.add(result.dtype)
        return result

    def check(self: v8DetectionLoss, predictions: dict, batch: dict) -> tuple:
        assert predictions["scores"].dtype == torch.float32
        return loss(self, predictions, batch)

    monkeypatch.setattr(torch.nn.functional, "conv2d", watch)
    monkeypatch.setattr(v8DetectionLoss, "loss", check)
    bf16 = dataclasses.replace(budget, bf16=True)
    train(finished.candidates[0], 0, bf16, finished.folder / "data.yaml", tmp_path / "seed-0", "cpu")
    assert torch.bfloat16 in seen
    ours = _state_dict(tmp_path / "seed-0")
    stock = _state_dict(finished.folder / "runs" / "yolo26n" / "seed-0")
    assert [tensor.dtype for tensor in ours.values()] == [tensor.dtype for tensor in stock.values()]
    assert any(not torch.equal(ours[name], tensor) for name, tensor in stock.items())


def _state_dict(training: Path) -> dict[str, torch.Tensor]:
    model = torch.load(training / "weights" / "last.pt", weights_only=False)["model"]
    return dict(model.state_dict())


def _interrupt(_: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def interrupted_after_an_epoch() -> Callable[[Callable[[], object]], None]:
    """Call something that trains and stop it when the first checkpoint has been written."""
    from ultralytics.utils import callbacks

    def call(trains: Callable[[], object]) -> None:
        callbacks.default_callbacks["on_model_save"].append(_interrupt)
        try:
            with pytest.raises(KeyboardInterrupt):
                trains()
        finally:
            callbacks.default_callbacks["on_model_save"].remove(_interrupt)

    return call


def test_an_interrupted_training_goes_on_even_where_the_folder_was_moved(
    finished: Comparison, budget: Budget, tmp_path: Path, interrupted_after_an_epoch: Callable
) -> None:
    candidate, data = finished.candidates[0], finished.folder / "data.yaml"
    old, folder = tmp_path / "old" / "seed-0", tmp_path / "new" / "seed-0"
    interrupted_after_an_epoch(lambda: train(candidate, 0, budget, data, old, "cpu"))
    old.parent.rename(folder.parent)
    train(candidate, 0, budget, data, folder, "cpu")
    epochs = [line.split(",")[0] for line in (folder / "results.csv").read_text().splitlines()[1:]]
    assert epochs == ["1", "2"]
    assert not old.exists()
    assert training.evaluate(candidate, budget, data, folder, "cpu", finished.truth)["resumed"]


def test_a_checkpoint_that_was_cut_off_starts_over(
    finished: Comparison, budget: Budget, tmp_path: Path
) -> None:
    last = tmp_path / "seed-0" / "weights" / "last.pt"
    last.parent.mkdir(parents=True)
    last.write_bytes(b"half a file")
    train(finished.candidates[0], 0, budget, finished.folder / "data.yaml", tmp_path / "seed-0", "cpu")
    assert last.stat().st_size > 1e6
