from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convattn.bench import memory, runner
from convattn.bench.networks import OTHERS, network_candidate
from convattn.bench.report import rows
from convattn.bench.runner import Measurement, count, measure
from convattn.bench.spec import Candidate, Case, Setting


class _Hungry(nn.Module):
    """Takes 64 MB beside its result."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.ones(2**24).sum()


class _Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no such luck\nand a trace")


class _Unbuildable(nn.Module):
    def __init__(self) -> None:
        raise RuntimeError("no such luck\nand a trace")


def _candidate(name: str = "a", pixels: int = 100, build: type[nn.Module] = nn.Identity) -> Candidate:
    return Candidate(name, build, (1, 3, 10, 10), pixels)


def test_figures_of_a_measurement() -> None:
    first = Measurement(_candidate(), np.array([4.0, 2.0, 3.0]), memory=3000)
    other = Measurement(_candidate(pixels=200), np.array([2.0, 1.0, 1.0]), memory=2000)
    assert first.latency == 3
    assert first.quartiles == (2.5, 3.5)
    assert other.throughput == 200
    assert first.speed(first) == first.memory_divisor(first) == 1
    assert other.speed(first) == 4  # half the time, twice the pixels
    assert other.memory_divisor(first) == 3  # two thirds of the memory, twice the pixels


def test_memory_is_the_growth_of_a_process_of_its_own() -> None:
    grown = memory.peak(_candidate(build=_Hungry), Setting())
    assert grown is not None
    assert 64e6 < grown < 100e6


def test_threads_and_random_numbers_of_the_process_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "peak", lambda side, setting: 1000)
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    measure(Case("case", [_candidate()]), Setting(threads=threads + 1), 1)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("build", [_Broken, _Unbuildable])
def test_a_failing_candidate_is_reported_and_the_others_are_measured(
    build: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "peak", lambda side, setting: 1000)
    case = Case("case", [_candidate("broken", build=build), _candidate("whole")])
    broken, whole = measure(case, Setting(), 2)
    assert broken.failure == "no such luck"
    assert len(whole.seconds) == 2
    first, second = rows(case, [broken, whole])
    assert first["latency_ms"] is None
    assert second["speedup"] is None
    assert second["latency_ms"] >= 0


def test_counts_convolutions() -> None:
    candidate = Candidate("convolution", partial(nn.Conv2d, 4, 8, 3, padding=1), (1, 4, 10, 20), 200)
    assert count(candidate) == (200 * 4 * 8 * 9, 4 * 8 * 9 + 8)


@pytest.mark.parametrize("name", ["esc", "esc-light", "esc@flex", "esc-nano"])
def test_every_form_of_a_network_has_the_same_count(name: str) -> None:
    assert count(network_candidate(name, 4, 64, 32)) == count(
        network_candidate(f"{name.split('@')[0]}@naive", 4, 64, 32)
    )


@pytest.mark.parametrize(
    ("name", "gmacs", "parameters"),
    [
        ("esc", 149.2, 968e3),
        ("esc-light", 91.0, 624e3),
        ("esc-fp", 60.8, 539e3),
        ("swinir-light", 63.6, 930e3),
        ("atd-light", 100.1, 769e3),
        ("omnisr", 50.9, 792e3),
    ],
)
def test_counts_are_those_of_the_paper(name: str, gmacs: float, parameters: float) -> None:
    if name in OTHERS:
        pytest.importorskip("spandrel")
    counted, weights = count(network_candidate(name, 4, 320, 180))
    assert counted == pytest.approx(gmacs * 1e9, rel=0.02)
    assert weights == pytest.approx(parameters, rel=0.02)
