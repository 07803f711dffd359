"""A small Ray cluster, and images to upscale."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two workers of one core each."""
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (else tests starve on a busy machine)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images in a folder and a subfolder, two of which want the same name."""
    random, root = np.random.default_rng(0), tmp_path / "in"
    for name in ("a.png", "A.PNG", "b.bmp", "b.png", "sub/c.jpg", ".hidden/d.png", "note.txt"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".txt":
            path.write_text("no image")
        else:
            Image.fromarray(random.integers(0, 255, (12, 9, 3), dtype=np.uint8)).save(path)
    return root
