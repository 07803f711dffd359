"""What `auto` chooses, for pretended processors."""

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

pytest.importorskip("lightning")

from convattn.training import hardware
from convattn.training.config import Recipe


def _recipe(**values: object) -> Recipe:
    return Recipe(network="esc-nano", scale=2, data="images", max_steps=1, **values)


def test_batch_size_follows_the_accelerator() -> None:
    assert _recipe(accelerator="cpu").batch_size < _recipe(accelerator="cuda").batch_size
    assert _recipe(accelerator="cpu", batch_size="auto") == _recipe(accelerator="cpu")
    assert _recipe(batch_size=3).batch_size == 3


def test_threads_are_those_of_torch() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert _recipe(num_threads="auto").num_threads == 1
        assert _recipe(num_threads=5).num_threads == 5
    finally:
        torch.set_num_threads(before)


def _step(seconds: dict[bool, float], seen: list[bool]) -> Callable[[], Tensor]:
    """A step that takes longer in one of the two precisions."""
    weight = torch.ones(1, requires_grad=True)

    def step() -> Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        time.sleep(seconds[seen[-1]])
        return weight * 2

    return step


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [({False: 0.0, True: 0.2}, "32-true"), ({False: 0.2, True: 0.0}, "bf16-mixed")],
)
def test_a_trial_decides_on_a_cpu_with_bfloat16(
    seconds: dict[bool, float], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cpu_has_bfloat16", lambda: True)
    seen: list[bool] = []
    precision, reason = hardware.precision("cpu", _step(seconds, seen))
    assert precision == chosen
    assert sorted(seen) == [False, False, True, True]
    assert "in a trial a step took" in reason


def test_no_trial_without_bfloat16_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cpu_has_bfloat16", lambda: False)
    seen: list[bool] = []
    precision, reason = hardware.precision("cpu", _step({}, seen))
    assert (precision, seen) == ("32-true", [])
    assert "no bfloat16" in reason


@pytest.mark.parametrize(("bfloat16", "chosen"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_gpus_take_the_half_precision_they_have(
    bfloat16: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16)
    assert hardware.precision("cuda", _step({}, []))[0] == chosen
