"""A comparison on a cluster is the comparison of one machine."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("ultralytics")
ray = pytest.importorskip("ray")

from convattn_yolo.comparison import Budget, Comparison, cluster  # noqa: E402

MODELS = ["yolo26n.yaml", "yolo26n.yaml@96"]


@pytest.fixture(scope="module", autouse=True)
def _two_workers() -> Iterator[None]:
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray's own name)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


class _KilledOnce(cluster.Trainer):
    """Dies at the first run of the first model, once its checkpoint of the first epoch is written."""

    def train(self, candidate: Any, seed: int) -> None:
        from ultralytics.utils import callbacks

        mark = self._comparison.folder / "mark"

        def die(_: object) -> None:
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)

        if candidate.imgsz == 96:
            callbacks.default_callbacks["on_model_save"].append(die)
        super().train(candidate, seed)


def _weights(comparison: Comparison, model: str) -> torch.Tensor:
    file = comparison.folder / "runs" / model / "seed-0" / "weights" / "last.pt"
    return torch.cat([p.flatten() for p in torch.load(file, weights_only=False)["model"].parameters()])


def test_trainings_of_a_cluster_are_those_of_one_machine(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "Trainer", _KilledOnce)
    budget = Budget(str(squares), epochs=2, imgsz=64, batch=2)
    one, many = (Comparison(MODELS, budget, 1, tmp_path / name) for name in ("one", "many"))
    assert len(list(one.train_missing("cpu"))) == 2
    steps = list(cluster.train_on_cluster(many, "auto", device="cpu"))
    assert sorted(step.run.model for step in steps) == ["yolo26n", "yolo26n@96"]
    assert (steps[-1].done, steps[-1].total) == (2, 2)
    assert torch.equal(_weights(one, "yolo26n"), _weights(many, "yolo26n"))
    assert one.runs()[0].metrics == pytest.approx(many.runs()[0].metrics, nan_ok=True)
    assert [run.resumed for run in many.runs()] == [False, True]
    assert not list(cluster.train_on_cluster(many, "auto", device="cpu"))


def test_the_command_takes_a_cluster(command: Callable[..., Any], squares: Path, tmp_path: Path) -> None:
    small = ["--epochs", 1, "--imgsz", 64, "--batch", 2, "--seeds", 1, "--device", "cpu"]
    words = [*MODELS, "--data", squares, "--out", tmp_path, *small, "--cluster", "auto"]
    ended = command("compare", *words)
    assert ended.status == 0, ended.err
    assert "[2/2]" in ended.out
    assert (tmp_path / "report.html").is_file()
