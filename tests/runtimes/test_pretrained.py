"""Weights by name: those that ship, those in a file, and those on the Hub."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from convattn.checkpoints import catalog
from convattn.checkpoints.loading import save_network
from convattn.errors import InputError
from convattn.models.registry import build
from convattn.runtimes.pretrained import from_pretrained


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bundled"
    folder.mkdir()
    for scale in (2, 4):
        save_network(build("esc-nano", scale), folder / f"esc-small-x{scale}.safetensors")
    monkeypatch.setattr(catalog, "_BUNDLED", folder)
    return folder


def test_bundled_weights(shipped: Path) -> None:
    assert catalog.scales("esc-small") == [2, 4]
    assert from_pretrained("esc-small", scale=4).scale == 4
    for scale in (None, 3):
        with pytest.raises(InputError, match="scale ×2, ×4"):
            from_pretrained("esc-small", scale=scale)


def test_weights_of_a_file(shipped: Path) -> None:
    file = shipped / "esc-small-x2.safetensors"
    assert from_pretrained(file).scale == 2
    assert from_pretrained(str(file), scale=2).scale == 2
    with pytest.raises(InputError, match="upscales ×2, not ×3"):
        from_pretrained(file, scale=3)


@pytest.mark.parametrize("name", ["esc-unknown", "runs/missing.pth", "/missing/x.pth", "./a/b", ""])
def test_unknown_weights(shipped: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)
    with pytest.raises(InputError, match=r"esc-small.*\.$"):
        from_pretrained(name)


def test_weights_from_the_hub(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ["README.md", "esc-small-x2.safetensors", "esc-small-x4.safetensors"]
    monkeypatch.setattr(huggingface_hub, "list_repo_files", {"user/repo": files}.__getitem__)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, file: str(shipped / file))
    assert from_pretrained("user/repo/esc-small-x4.safetensors").scale == 4
    assert from_pretrained("user/repo", scale=2).scale == 2
    with pytest.raises(InputError, match=r"esc-small-x2.safetensors, esc-small-x4.safetensors"):
        from_pretrained("user/repo")


def test_weights_from_a_folder_that_could_be_a_hub_id(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs/small"
    folder.mkdir(parents=True)
    with pytest.raises(InputError, match=r"Of the files in runs/small, none could be meant"):
        from_pretrained("runs/small")
    for scale in (2, 4):
        (folder / f"my-x{scale}.safetensors").write_bytes(
            (shipped / f"esc-small-x{scale}.safetensors").read_bytes()
        )
        assert from_pretrained("runs/small", scale=scale).scale == scale
    with pytest.raises(InputError, match=r"my-x2.safetensors, my-x4.safetensors could be meant; name one"):
        from_pretrained("runs/small")


def test_unreachable_hub_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any) -> None:
        raise ConnectionError("no route to host\nsecond line")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(InputError, match=r"user/repo/x\.pth .*no route to host\.$"):
        from_pretrained("user/repo/x.pth")


def test_everything_that_ships_loads() -> None:
    shipped = [
        model for model in catalog.models().values() if model.weights.keys() and not model.needs_spandrel
    ]
    for model in shipped:
        for scale, weights in model.weights.items():
            if weights.url is None:
                network = from_pretrained(model.name, scale)
                assert network.scale == scale
                assert sum(tensor.numel() for tensor in network.parameters()) == weights.parameters
