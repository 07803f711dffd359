"""A network with every kind of row, small enough to train in a second."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

pytest.importorskip("ultralytics")

TINY = {
    "nc": 2,
    "end2end": True,
    "reg_max": 1,
    "scales": {"n": [0.5, 0.25, 1024]},
    "backbone": [
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "Conv", [64, 3, 2]],
        [-1, 2, "C3k2_ESC", [128, False, 0.5]],
        [-1, 1, "Conv", [128, 3, 2]],
        [-1, 2, "C3k2_ESC", [128, True, 0.5, True]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 2], 1, "Concat", [1]],
        [-1, 2, "C3k2", [128, False]],
        [-1, 2, "C3k2_ESCBranch", [128, False]],
        [[8, 4], 1, "Detect", ["nc"]],
    ],
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def description() -> dict[str, Any]:
    """A model description to change at will."""
    return copy.deepcopy(TINY)


@pytest.fixture
def tiny(tmp_path: Path, description: dict[str, Any]) -> Path:
    """The same as a file of one's own."""
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(description))
    return file


@pytest.fixture(scope="session")
def dataset(squares: Path) -> Path:
    """The squares with the absolute path that Ultralytics wants."""
    file = squares.with_name("absolute.yaml")
    file.write_text(squares.read_text().replace("path: .", f"path: {squares.parent}"))
    return file
