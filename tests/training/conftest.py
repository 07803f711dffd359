"""Fixtures of the tests of training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convattn.training.config import Recipe

AtStep = Callable[[int, Callable[[], object]], None]
Figures = Callable[[Path], dict[str, list[float]]]
MakeRecipe = Callable[..., Recipe]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small smooth images."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for index in range(3):
        coarse = Image.fromarray(random.integers(0, 256, (6, 7, 3), dtype=np.uint8))
        coarse.resize((56, 48), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def quick_recipe(images: Path) -> MakeRecipe:
    """Makes recipes that train for seconds, given an output folder and values of the recipe."""
    defaults = dict(
        batch_size=2,
        patch_size=8,
        learning_rate=1e-3,
        ema_decay=0.5,
        accelerator="cpu",
        log_every=1,
        precision="32-true",
        num_threads=1,
    )

    def make(run: Path, **settings: Any) -> Recipe:
        return Recipe(**(dict(data=str(images), output_dir=str(run)) | defaults | settings))

    return make


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> AtStep:
    """Calls a function once, in the training step of the given number."""
    from convattn.training import Training

    original = Training.training_step

    def at(step: int, happening: Callable[[], object]) -> None:
        happened: list[bool] = []

        def training_step(self: Training, batch: Any, index: int) -> Any:
            if self.global_step == step and not happened:
                happened.append(True)
                happening()
            return original(self, batch, index)

        monkeypatch.setattr(Training, "training_step", training_step)

    return at


@pytest.fixture(scope="session")
def figures() -> Figures:
    """Reads the logged values of the first run in an output folder, by name."""

    def read(run: Path) -> dict[str, list[float]]:
        lines = (run / "csv/version_0/metrics.csv").read_text().splitlines()
        columns = zip(*(line.split(",") for line in lines), strict=True)
        return {name: [float(value) for value in values if value] for name, *values in columns}

    return read
