import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

pytest.importorskip("lightning")

from convattn.cli import main
from convattn.errors import InputError
from convattn.sr.networks import build
from convattn.sr.recipe import Recipe
from convattn.sr.training import Training, train
from convattn.sr.weights import load_network


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for index in range(3):
        coarse = Image.fromarray(random.integers(0, 256, (6, 7, 3), dtype=np.uint8))
        coarse.resize((56, 48), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


def _recipe(pictures: Path, run: Path, **changes: Any) -> Recipe:
    values = {
        "network": "esc-nano",
        "scale": 2,
        "data": str(pictures),
        "run": str(run),
        "steps": 6,
        "batch": 2,
        "patch": 8,
        "learning_rate": 1e-3,
        "warmup": 2,
        "schedule": "cosine",
        "average": 0.5,
        "accelerator": "cpu",
        "checkpoint_every": 2,
        "log_every": 1,
    }
    return Recipe(**(values | changes))  # type: ignore[arg-type]


def _weights(path: Path) -> dict[str, Tensor]:
    return load_network(path).state_dict()


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def _at_step(monkeypatch: pytest.MonkeyPatch, step: int, happening: Any) -> None:
    """Let something happen once within a training step."""
    original, happened = Training.training_step, []

    def training_step(self: Training, batch: Any, index: int) -> Tensor:
        if self.global_step == step and not happened:
            happened.append(True)
            happening()
        return original(self, batch, index)

    monkeypatch.setattr(Training, "training_step", training_step)


@pytest.fixture(scope="module")
def unbroken(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(_recipe(pictures, tmp_path_factory.mktemp("unbroken")))


def test_a_killed_run_ends_like_an_unbroken_one(
    pictures: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill() -> None:
        raise ArithmeticError

    _at_step(monkeypatch, 5, kill)
    with pytest.raises(ArithmeticError):
        train(_recipe(pictures, tmp_path))
    torch.rand(3)  # the resumed run is not to depend on what came before it
    resumed = train(_recipe(pictures, tmp_path))
    assert _equal(_weights(resumed), _weights(unbroken))
    logged = [(folder / "metrics.csv").read_text() for folder in sorted((tmp_path / "csv").iterdir())]
    assert logged[1].splitlines()[1].endswith(",4")  # it went on from the checkpoint of step 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(
    pictures: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = signal.getsignal(number)
    _at_step(monkeypatch, 2, lambda: os.kill(os.getpid(), number))
    with pytest.raises(InputError, match="after 3 steps; the same command goes on from there"):
        train(_recipe(pictures, tmp_path))
    assert signal.getsignal(number) == before
    assert _equal(_weights(train(_recipe(pictures, tmp_path))), _weights(unbroken))


def test_starting_anew_and_running_a_finished_training_again(pictures: Path, unbroken: Path) -> None:
    first, written = _weights(unbroken), unbroken.stat().st_mtime_ns
    assert train(_recipe(pictures, unbroken.parent)) == unbroken
    assert unbroken.stat().st_mtime_ns == written
    train(_recipe(pictures, unbroken.parent, resume="never"))
    assert unbroken.stat().st_mtime_ns > written
    assert _equal(_weights(unbroken), first)


def test_what_is_kept_is_the_average_of_the_steps_weights(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, original = [], Training.optimizer_step

    def optimizer_step(self: Training, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        seen.append({key: value.clone() for key, value in self.network.state_dict().items()})

    monkeypatch.setattr(Training, "optimizer_step", optimizer_step)
    kept = _weights(train(_recipe(pictures, tmp_path, steps=3, average=0.75)))
    for key, value in kept.items():
        expected = 0.75 * (0.75 * seen[0][key] + 0.25 * seen[1][key]) + 0.25 * seen[2][key]
        torch.testing.assert_close(value, expected)


def test_it_learns_and_shows_it(pictures: Path, tmp_path: Path) -> None:
    changes = {"validation": str(pictures), "validate_every": 10, "samples_every": 10, "learning_rate": 2e-3}
    recipe = _recipe(pictures, tmp_path, steps=30, average=0.5, **changes)
    train(recipe)
    rows = [line.split(",") for line in (tmp_path / "csv/version_0/metrics.csv").read_text().splitlines()]
    columns = {name: [row[i] for row in rows[1:] if row[i]] for i, name in enumerate(rows[0])}
    psnr, loss = (list(map(float, columns[name])) for name in ("psnr", "loss"))
    assert len(psnr) == 3
    assert len(loss) == 30
    assert psnr[2] > psnr[0]
    assert sum(loss[-5:]) < 0.7 * sum(loss[:5])
    assert Image.open(tmp_path / "samples/10.png").size == (3 * 16, 2 * 16)
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_x3_starts_from_x2(pictures: Path, unbroken: Path, tmp_path: Path) -> None:
    recipe = _recipe(pictures, tmp_path, scale=3, start_from=str(unbroken), steps=1, learning_rate=1e-12)
    started, fresh = _weights(train(recipe)), build("esc-nano", 3).state_dict()
    first = "features.shallow.weight"
    torch.testing.assert_close(started[first], _weights(unbroken)[first])
    assert not torch.allclose(started[first], fresh[first])
    with pytest.raises(InputError, match="are of another network"):
        train(_recipe(pictures, tmp_path / "light", network="esc-light", start_from=str(unbroken)))


def test_a_run_folder_holds_one_training(pictures: Path, unbroken: Path) -> None:
    with pytest.raises(InputError, match="holds a training of esc-nano x2; give another run=FOLDER"):
        train(_recipe(pictures, unbroken.parent, scale=3))


def test_a_damaged_checkpoint_is_named(pictures: Path, unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(unbroken.parent, folder)
    checkpoint = folder / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    with pytest.raises(InputError, match="damaged; delete it"):
        train(_recipe(pictures, folder))


def test_the_command_says_in_a_line_what_is_wrong(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["convattn", "train", "esc-nano", f"data={tmp_path}", "patch=8"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(f"convattn: The folder {tmp_path} holds no pictures")
