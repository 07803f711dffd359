"""Models and their trainings: same images for every model, precision, interruptions."""

import dataclasses
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from convattn.errors import InputError
from convattn_yolo.comparison import (
    Budget,
    Comparison,
    training,
)
from convattn_yolo.comparison.training import find_candidate, train


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


def _state_dict(training: Path) -> dict[str, torch.Tensor]:
    model = torch.load(training / "weights" / "last.pt", weights_only=False)["model"]
    return dict(model.state_dict())


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
