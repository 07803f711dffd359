"""What every test may ask for."""

import atexit
import logging
import os
import runpy
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

# Ultralytics reads these when it is imported: no test shall touch the user's settings or the network.
os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="convattn-tests-")
os.environ["YOLO_OFFLINE"] = "1"
os.environ["YOLO_AUTOINSTALL"] = "0"

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

atexit.register(shutil.rmtree, os.environ["YOLO_CONFIG_DIR"], ignore_errors=True)

# The log handler of Ultralytics keeps the stream of the test that imported it; later tests have closed it.
logging.raiseExceptions = False


ENVIRONMENT = Path(__file__).parent / "tests" / "environment"
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ENVIRONMENT), os.environ.get("PYTHONPATH"))))
runpy.run_path(str(ENVIRONMENT / "sitecustomize.py"))  # for this process too

settings.register_profile("shared machine", deadline=None)  # checks are about values, never about time
settings.load_profile("shared machine")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs convattn's command line with some words."""
    from convattn.cli import main

    def run(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["convattn", *map(str, words)])
        with pytest.raises(SystemExit) as exit_:
            main()
        return Ended(int(exit_.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """Lets no file grow beyond so many bytes meanwhile, which is what a full disk comes to."""
    resource = pytest.importorskip("resource")

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return limited


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of benchmark and training data that lies beside a developer's checkout."""
    folder = Path(__file__).parents[1] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the data folder beside the checkout")
    return folder


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data.yaml of a detection data set: squares of 16, 48 and 112 pixels on noise, two classes."""
    folder, random = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    for split, count in {"train": 4, "val": 3}.items():
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for index in range(count):
            image = random.integers(0, 80, (160, 200, 3), dtype=np.uint8)
            lines = []
            for cls, (left, top, side) in enumerate([(4, 4, 16), (4, 100, 48), (80, 30, 112)]):
                image[top : top + side, left : left + side] = (250, 120 * (cls % 2), 60)
                center = f"{(left + side / 2) / 200} {(top + side / 2) / 160}"
                lines.append(f"{cls % 2} {center} {side / 200} {side / 160}")
            Image.fromarray(image).save(folder / "images" / split / f"{split}{index}.png")
            (folder / "labels" / split / f"{split}{index}.txt").write_text("\n".join(lines))
    file = folder / "data.yaml"
    file.write_text("path: .\ntrain: images/train\nval: images/val\nnames: {0: even, 1: odd}\n")
    return file
