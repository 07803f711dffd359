"""A finished comparison of two models on few images."""

from pathlib import Path

import pytest

from convattn_yolo.comparison import (
    Budget,
    Comparison,
)

MODELS = ["yolo26n.yaml", "yolo26n.yaml@96"]


@pytest.fixture(scope="module")
def budget(squares: Path) -> Budget:
    return Budget(str(squares), epochs=2, imgsz=64, batch=2)


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
