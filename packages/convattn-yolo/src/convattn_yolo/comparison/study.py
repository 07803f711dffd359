"""A comparison in a folder: its training runs, those that are finished, and training the others."""

import dataclasses
import gc
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from convattn.errors import InputError
from convattn.files import replacing
from convattn_yolo.comparison.accuracy import ground_truth
from convattn_yolo.comparison.cost import Cost, measure_costs
from convattn_yolo.comparison.dataset import resolve_dataset
from convattn_yolo.comparison.statistics import SequentialTest
from convattn_yolo.comparison.training import (
    Budget,
    Candidate,
    Run,
    digest,
    digest_model,
    evaluate,
    find_candidate,
    load_detector,
    train,
    write_json,
)

__all__ = ["Comparison", "FinishedRun"]


@dataclass(frozen=True)
class FinishedRun:
    """The state of a comparison after a run.

    Attributes:
        run: The run that has just finished.
        done: Number of finished runs, including this one.
        total: Number of runs of the comparison.
        seconds_left: Estimated time of the others, from the durations of the finished runs.
    """

    run: Run
    done: int
    total: int
    seconds_left: float

    def __str__(self) -> str:
        figures = [
            f"{metric} {value:.3f}" for metric, value in self.run.metrics.items() if not math.isnan(value)
        ]
        return (
            f"[{self.done}/{self.total}] {self.run.model}, seed {self.run.seed}: {', '.join(figures)} "
            f"({_duration(self.run.seconds)}, about {_duration(self.seconds_left)} left)"
        )


class Comparison:
    """Training runs of several models on one dataset, paired by their seeds.

    Each run has a subfolder of one common folder. Opening the folder again with the same budget resumes the
    comparison; models and seeds may be added later.

    Args:
        models: YAML names or weights files, each optionally with ``@`` and an image size; the first is the
            baseline.
        budget: The settings shared by all runs.
        seeds: Number of runs of each model.
        folder: Folder of all results.

    Attributes:
        candidates: The models.
        budget: The budget, with absolute paths.
        folder: The folder, as an absolute path.
        data: The dataset with absolute paths.
        truth: Labels of its validation images, as a COCO annotation dictionary.

    Raises:
        InputError: A model or the dataset cannot be used, or the folder holds a comparison with another
            budget.
    """

    def __init__(self, models: Sequence[str], budget: Budget, seeds: int, folder: str | Path) -> None:
        if len(models) < 2:
            raise InputError("A comparison needs at least two models: the baseline and another one.")
        self.folder = Path(folder).resolve()
        self.budget = dataclasses.replace(
            budget, data=_absolute(budget.data), weights=_absolute(budget.weights)
        )
        self._seeds = range(seeds)
        with _quiet_ultralytics():
            self.data = resolve_dataset(self.budget.data)
            self.candidates = [find_candidate(model, budget.imgsz) for model in models]
            self.truth = ground_truth(self.data)
            start = {"the start weights": _digest_start(self.budget.weights)} if self.budget.weights else {}
        names = [candidate.name for candidate in self.candidates]
        if twice := {name for name in names if names.count(name) > 1}:
            raise InputError(f"Several models are called {min(twice)}: give their files different names.")
        digests = {candidate.name: candidate.digest for candidate in self.candidates}
        self._claim_folder(digests | start | {"the validation labels": digest(self.truth)})

    def _claim_folder(self, digests: dict[str, str]) -> None:
        """Record the comparison in its folder, or check that it equals the recorded one.

        Args:
            digests: SHA-256 of everything that must not change between two calls, by name.
        """
        note = self.folder / "comparison.json"
        budget = dataclasses.asdict(self.budget)
        if note.is_file():
            known = json.loads(note.read_text())
            changed = [
                f"{key} was {old}, now {budget[key]}"
                for key, old in {**dataclasses.asdict(Budget("")), **known["budget"]}.items()
                if old != budget[key]
            ]
            changed += [
                f"{name} has changed"
                for name, old in known["digests"].items()
                if digests.get(name, old) != old
            ]
            if changed:
                raise InputError(
                    f"{self.folder} holds another comparison ({'; '.join(changed)}): choose another folder, "
                    "or use the same settings to resume it."
                )
            digests = known["digests"] | digests
        write_json(note, {"budget": budget, "digests": digests})
        description = {key: self.data[key] for key in ("train", "val", "names")}
        with replacing(self.folder / "data.yaml") as temporary:
            temporary.write_text(yaml.safe_dump({"path": str(self.data["path"]), **description}))

    def runs(self) -> list[Run]:
        """Return the finished runs, seed by seed."""
        records = [self._record(candidate, seed) for candidate, seed in self._plan()]
        return [Run.load(record) for record in records if record.is_file()]

    def train_missing(
        self, device: str | None = None, test: SequentialTest | None = None
    ) -> Iterator[FinishedRun]:
        """Train what is not finished yet, all models with one seed before the next seed.

        Args:
            device: Ultralytics' name of a device; None lets it choose.
            test: Skips further runs of models whose verdict it finds decided; None trains all.

        Yields:
            The progress after each run.
        """
        while missing := self.missing(test):
            candidate, seed = missing[0]
            self.train_run(candidate, seed, device)
            yield self.progress(candidate, seed, test)

    def progress(self, candidate: Candidate, seed: int, test: SequentialTest | None = None) -> FinishedRun:
        """Return the progress after a run that has just finished."""
        runs, left = self.runs(), [other.name for other, _ in self.missing(test)]
        run = Run.load(self._record(candidate, seed))
        return FinishedRun(run, len(runs), len(runs) + len(left), _seconds(left, runs))

    def missing(self, test: SequentialTest | None = None) -> list[tuple[Candidate, int]]:
        """Return model and seed of the runs that are not finished, seed by seed."""
        baseline, *others = self.candidates
        runs = self.runs()
        undecided = [
            other for other in others if test is None or not _is_decided(test, runs, baseline, other)
        ]
        needed = [baseline, *undecided] if undecided else []
        return [run for run in self._plan() if run[0] in needed and not self._record(*run).is_file()]

    def measure_costs(self, device: str | None = None) -> dict[str, Cost]:
        """Measure parameters, operations and latency of each model that has a finished run.

        Args:
            device: As for :meth:`train_missing`.
        """
        from ultralytics.utils.torch_utils import select_device

        first = {run.model: run for run in reversed(self.runs())}
        where = select_device(device or "", verbose=False)
        networks = {}
        with _quiet_ultralytics():
            for candidate in self.candidates:
                if run := first.get(candidate.name):
                    weights = self._folder(candidate, run.seed) / "weights" / "last.pt"
                    network = load_detector(weights).model.float().eval()
                    if getattr(network, "end2end", run.end_to_end) != run.end_to_end:
                        network.end2end = run.end_to_end
                    networks[candidate.name] = network.fuse(verbose=False).to(where), candidate.imgsz
            return measure_costs(networks)

    def _plan(self) -> Iterator[tuple[Candidate, int]]:
        """Yield model and seed of every run of the comparison."""
        for seed in self._seeds:
            for candidate in self.candidates:
                yield candidate, seed

    def _record(self, candidate: Candidate, seed: int) -> Path:
        """The file that records the result of a run."""
        return self._folder(candidate, seed) / "run.json"

    def _folder(self, candidate: Candidate, seed: int) -> Path:
        return self.folder / "runs" / candidate.name / f"seed-{seed}"

    def train_run(self, candidate: Candidate, seed: int, device: str | None = None) -> None:
        """Train and evaluate one run, or resume it, and record its result."""
        folder, data = self._folder(candidate, seed), self.folder / "data.yaml"
        start = time.monotonic()
        with _quiet_ultralytics():
            train(candidate, seed, self.budget, data, folder, device)
            measured = evaluate(candidate, self.budget, data, folder, device, self.truth)
        gc.collect()
        seconds = time.monotonic() - start
        run = Run(candidate.name, seed, seconds=seconds, versions=_versions(), **measured)
        run.save(self._record(candidate, seed))


def _is_decided(test: SequentialTest, runs: Sequence[Run], baseline: Candidate, other: Candidate) -> bool:
    first, second = ({run.seed: run for run in runs if run.model == c.name} for c in (baseline, other))
    seeds = sorted(first.keys() & second.keys())
    return test.is_decided(
        *([runs_of[seed].metrics[test.metric] for seed in seeds] for runs_of in (first, second))
    )


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _absolute(source: str | None) -> Any:
    """Make the path of a file absolute; keep anything else as a name known to Ultralytics."""
    return str(Path(source).resolve()) if source and Path(source).is_file() else source


def _digest_start(weights: str) -> str:
    if Path(weights).suffix != ".pt":
        raise InputError(f"{weights} cannot serve as start weights: they must be a .pt file.")
    return digest_model(weights)


def _seconds(left: Sequence[str], done: Sequence[Run]) -> float:
    """Estimate the duration of runs of these models from the finished ones."""
    anyone = [run.seconds for run in done]
    return sum(np.median([run.seconds for run in done if run.model == name] or anyone) for name in left)


def _versions() -> dict[str, str]:
    return {package: version(package) for package in ("convattn", "ultralytics", "torch")}


@contextmanager
def _quiet_ultralytics() -> Iterator[None]:
    """Silence Ultralytics except for errors."""
    from ultralytics.utils import LOGGER

    level = LOGGER.level
    LOGGER.setLevel(logging.ERROR)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
