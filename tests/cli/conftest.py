"""What tests of the commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convattn.checkpoints.loading import save_network
from convattn.models.registry import build


@pytest.fixture
def upscale(
    command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """Upscales in a folder of its own, by a network nobody trained; gives exit status and stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    save_network(build("esc-nano", 2), "weights/nano.safetensors")

    def run(*arguments: Any) -> tuple[int, str]:
        ended = command("upscale", "--model", "weights/nano.safetensors", "--device", "cpu", *arguments)
        return ended.status, ended.err

    return run
