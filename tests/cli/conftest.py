"""What tests of the commands share."""

import pytest

from convattn.checkpoints.loading import save_network
from convattn.models.registry import build


@pytest.fixture
def upscale(command, tmp_path, monkeypatch):
    """Upscales in a folder of its own, by a network nobody trained; gives exit status and stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    save_network(build("esc-nano", 2), "weights/nano.safetensors")

    def run(*arguments):
        ended = command("upscale", "--model", "weights/nano.safetensors", "--device", "cpu", *arguments)
        return ended.status, ended.err

    return run
