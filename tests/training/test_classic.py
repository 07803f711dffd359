import os
import shutil
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

pytest.importorskip("lightning")

from convattn.checkpoints.loading import load_network
from convattn.errors import InputError
from convattn.models.registry import build
from convattn.ops import cpu
from convattn.training import Training, hardware, train

from .conftest import AtStep, Figures, MakeRecipe


@pytest.fixture(scope="module")
def recipe_of(quick_recipe: MakeRecipe) -> MakeRecipe:
    """Makes the recipe of an output folder, with changes."""
    return partial(
        quick_recipe,
        network="esc-nano",
        scale=2,
        max_steps=6,
        warmup_steps=2,
        schedule="cosine",
        checkpoint_every=2,
    )


def _weights(path: Path) -> dict[str, Tensor]:
    return load_network(path).state_dict()


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def unbroken(recipe_of: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe_of(tmp_path_factory.mktemp("unbroken")))


@pytest.mark.skipif(not cpu.is_available(), reason="the kernels are not built here")
def test_learns_by_the_compiled_kernels(
    recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = set()
    run = cpu.gradients.run
    monkeypatch.setattr(cpu.gradients, "run", lambda kernel, *args: called.add(kernel) or run(kernel, *args))
    train(recipe_of(tmp_path, max_steps=1))
    operators = "conv_attention", "convolution", "feed_forward", "pointwise", "window_attention"
    assert called == {f"{operator}_gradient" for operator in operators}


def test_a_killed_run_ends_like_an_unbroken_one(
    recipe_of: MakeRecipe, unbroken: Path, tmp_path: Path, at_step: AtStep
) -> None:
    def kill() -> None:
        raise ArithmeticError

    at_step(5, kill)
    with pytest.raises(ArithmeticError):
        train(recipe_of(tmp_path))
    torch.rand(3)  # the resumed run is not to depend on what came before it
    resumed = train(recipe_of(tmp_path))
    assert _equal(_weights(resumed), _weights(unbroken))
    logged = [(folder / "metrics.csv").read_text() for folder in sorted((tmp_path / "csv").iterdir())]
    assert logged[1].splitlines()[1].endswith(",4")  # resumed from the checkpoint of step 4


def test_a_full_disk_keeps_the_last_checkpoint(
    recipe_of: MakeRecipe, full_disk: Callable[[int], AbstractContextManager[None]], tmp_path: Path
) -> None:
    train(recipe_of(tmp_path, max_steps=1))
    kept = (tmp_path / "last.ckpt").read_bytes()
    with full_disk(100_000), pytest.raises(InputError, match=r"last\.ckpt cannot be written"):
        train(recipe_of(tmp_path, max_steps=2))
    assert (tmp_path / "last.ckpt").read_bytes() == kept
    assert not list(tmp_path.glob(".last*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_resume(
    recipe_of: MakeRecipe, unbroken: Path, tmp_path: Path, number: int, at_step: AtStep
) -> None:
    before = signal.getsignal(number)
    at_step(2, lambda: os.kill(os.getpid(), number))
    with pytest.raises(InputError, match="after 3 steps; the same command resumes it"):
        train(recipe_of(tmp_path))
    assert signal.getsignal(number) == before
    assert _equal(_weights(train(recipe_of(tmp_path))), _weights(unbroken))


def test_restarting_and_running_a_finished_training_again(recipe_of: MakeRecipe, unbroken: Path) -> None:
    first, written = _weights(unbroken), unbroken.stat().st_mtime_ns
    assert train(recipe_of(unbroken.parent)) == unbroken
    assert unbroken.stat().st_mtime_ns == written
    train(recipe_of(unbroken.parent, resume="never"))
    assert unbroken.stat().st_mtime_ns > written
    assert _equal(_weights(unbroken), first)


def test_the_result_is_the_ema_of_the_weights(
    recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, original = [], Training.optimizer_step

    def optimizer_step(self: Training, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        seen.append({key: value.clone() for key, value in self.network.state_dict().items()})

    monkeypatch.setattr(Training, "optimizer_step", optimizer_step)
    kept = _weights(train(recipe_of(tmp_path, max_steps=3, ema_decay=0.75)))
    for key, value in kept.items():
        expected = 0.75 * (0.75 * seen[0][key] + 0.25 * seen[1][key]) + 0.25 * seen[2][key]
        torch.testing.assert_close(value, expected)


def test_it_learns_and_shows_it(
    recipe_of: MakeRecipe, images: Path, figures: Figures, tmp_path: Path
) -> None:
    changes = {"validation": str(images), "validate_every": 10, "samples_every": 10, "learning_rate": 2e-3}
    train(recipe_of(tmp_path, max_steps=30, **changes))
    psnr, loss = (figures(tmp_path)[name] for name in ("psnr", "loss"))
    assert len(psnr) == 3
    assert len(loss) == 30
    assert psnr[2] > psnr[0]
    assert sum(loss[-5:]) < 0.7 * sum(loss[:5])
    assert Image.open(tmp_path / "samples/10.png").size == (3 * 16, 2 * 16)
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_x3_starts_from_x2(recipe_of: MakeRecipe, unbroken: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, scale=3, start_from=str(unbroken), max_steps=1, learning_rate=1e-12)
    started, fresh = _weights(train(recipe)), build("esc-nano", 3).state_dict()
    first = "features.shallow.weight"
    torch.testing.assert_close(started[first], _weights(unbroken)[first])
    assert not torch.allclose(started[first], fresh[first])
    with pytest.raises(InputError, match="are of another network"):
        train(recipe_of(tmp_path / "light", network="esc-light", start_from=str(unbroken)))


def test_a_run_folder_holds_one_training(recipe_of: MakeRecipe, unbroken: Path) -> None:
    with pytest.raises(InputError, match="holds a training of esc-nano x2; choose another output_dir=FOLDER"):
        train(recipe_of(unbroken.parent, scale=3))


def test_a_damaged_checkpoint_is_named(recipe_of: MakeRecipe, unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(unbroken.parent, folder)
    checkpoint = folder / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    with pytest.raises(InputError, match="damaged; delete it"):
        train(recipe_of(folder))


def test_the_command_says_in_a_line_what_is_wrong(command: Callable[..., Any], tmp_path: Path) -> None:
    ended = command("train", "esc-nano", f"data={tmp_path}", "patch_size=8")
    assert ended.status == 1
    assert ended.err.splitlines()[-1].startswith(f"convattn: The folder {tmp_path} holds no images")


def test_auto_precision_is_tried_once_and_kept(
    recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The choice is printed and recorded; a resumed run keeps it, and nothing of the trial stays."""
    answers = iter([("bf16-mixed", "it won")])
    monkeypatch.setattr(hardware, "precision", lambda accelerator, step: (step(), next(answers))[1])
    threads, random_state = torch.get_num_threads(), torch.get_rng_state()
    train(recipe_of(tmp_path, max_steps=2, precision="auto", num_threads=threads + 1))
    assert "Precision bf16-mixed: it won." in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["precision"] == "bf16-mixed"
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random_state)
    train(recipe_of(tmp_path, max_steps=4, precision="auto"))
    assert "as before the interruption" in capsys.readouterr().out


def test_the_trial_leaves_the_training_as_it_was(recipe_of: MakeRecipe, tmp_path: Path) -> None:
    tried = _weights(train(recipe_of(tmp_path / "tried", max_steps=2, precision="auto")))
    precision = yaml.safe_load((tmp_path / "tried" / "recipe.yaml").read_text())["precision"]
    fixed = _weights(train(recipe_of(tmp_path / "fixed", max_steps=2, precision=precision)))
    assert _equal(tried, fixed)
