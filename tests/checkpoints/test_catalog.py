"""The catalog: names, scales, cards, and weights that are downloaded when they are asked for."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch

from convattn import from_pretrained
from convattn.bench.networks import OTHERS, network_candidate
from convattn.bench.runner import count
from convattn.checkpoints import catalog, hub
from convattn.checkpoints.catalog import Availability
from convattn.checkpoints.key_names import to_reference
from convattn.checkpoints.loading import save_network
from convattn.checkpoints.model_card import ModelCard, Task, read_card
from convattn.checkpoints.released import RELEASED
from convattn.errors import InputError
from convattn.images.sizes import ScaleRequest
from convattn.models.registry import build


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONVATTN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def esc_light(cache: Path) -> Path:
    """Weights of esc-light ×2 as they lie in the cache after a download."""
    cache.mkdir(parents=True)
    path = cache / "ESC_light_X2.pth"
    torch.save({"params_ema": to_reference(build("esc-light", 2).state_dict())}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (cache / "ESC_light_X2.pth.sha256").write_text(f"{digest}  {path.name}\n")
    return path


def test_every_name_file_and_hash_is_its_own() -> None:
    files = [file for model in RELEASED for file in model.files.values()]
    names = [urlsplit(file.url(model)).path for model in RELEASED for file in model.files.values()]
    assert len({Path(name).name for name in names}) == len(names)
    hashes = [file.sha256 for file in files if file.sha256]
    assert len(set(hashes)) == len(hashes)
    assert all(len(digest) == 64 and int(digest, 16) for digest in hashes)
    assert len({model.name for model in RELEASED}) == len(RELEASED)


@pytest.mark.parametrize(
    "model", [model for model in RELEASED if not model.needs_spandrel], ids=lambda m: m.name
)
def test_parameters_of_the_authors_networks(model: Any) -> None:
    network = model.name.removesuffix("-dflip").removesuffix("-mse")
    for scale, file in model.files.items():
        if file.parameters:
            with torch.device("meta"):
                built = build(network, scale)
            assert sum(parameter.numel() for parameter in built.parameters()) == file.parameters


def test_parameters_of_networks_that_spandrel_builds() -> None:
    pytest.importorskip("spandrel")
    from spandrel.architectures.Compact import Compact
    from spandrel.architectures.ESRGAN import ESRGAN

    built = {
        "realesrgan-x4plus": ESRGAN(num_filters=64, num_blocks=23, scale=4),
        "realesrgan-x2plus": ESRGAN(in_nc=12, num_filters=64, num_blocks=23, scale=4),
        "realesrgan-x4plus-anime": ESRGAN(num_filters=64, num_blocks=6, scale=4),
        "realesr-general-x4v3": Compact(num_feat=64, num_conv=32, upscale=4),
        "realesr-animevideov3": Compact(num_feat=64, num_conv=16, upscale=4),
    }
    for name, network in built.items():
        ((_, weights),) = catalog.models()[name].weights.items()
        assert sum(parameter.numel() for parameter in network.parameters()) == weights.parameters, name
    assert "swinir-light" in OTHERS
    for scale, weights in catalog.models()["swinir-light"].weights.items():
        assert count(network_candidate("swinir-light", scale or 0, 16, 16))[1] == weights.parameters


def test_a_model_in_the_cache_is_loaded_by_name(esc_light: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_download", lambda *_: pytest.fail("downloaded"))
    network = from_pretrained("esc-light", 2)
    assert network.scale == 2
    weights = catalog.models()["esc-light"].weights
    assert weights[2].availability is Availability.cached
    assert weights[2].bytes_on_disk == esc_light.stat().st_size
    assert weights[3].availability is Availability.download


def test_a_first_download_of_unknown_hash_must_be_a_network(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(hub, "_download", lambda url, part: part.write_bytes(b"<html>log in</html>"))
    with pytest.raises(InputError, match=r"ESC_light_X2\.pth is not a model: .*A proxy or mirror"):
        from_pretrained("esc-light", 2)
    assert not [*cache.glob("*.pth")]


def test_the_scale_chooses_and_must_exist() -> None:
    esc = catalog.models()["esc"]
    assert esc.scales == [2, 3, 4]
    for scale in (None, 5):
        with pytest.raises(InputError, match="exists at scale ×2, ×3, ×4"):
            esc.select(scale)
    assert catalog.models()["esc-real"].select(None).sha256
    assert catalog.models()["esc-nano-lte"].select(7) == catalog.models()["esc-nano-lte"].select(None)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("esc-reel", "esc-real"), ("ESC_light", "esc-light"), ("RealESRGAN_x4plus", "realesrgan")],
)
def test_a_misspelt_name_gets_a_suggestion(name: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"Did you mean {meant}"):
        from_pretrained(name)


def test_the_default_follows_the_request() -> None:
    assert catalog.default_model(None) == "esc-nano"
    assert catalog.default_model(ScaleRequest((2, 2))) == "esc-nano"
    assert catalog.default_model(ScaleRequest((2.5, 2.5))) == "esc-nano-lte"


def test_the_header_carries_the_card(tmp_path: Path) -> None:
    card = ModelCard(
        Task.real_world,
        "photos",
        "CC-BY-4.0",
        data="300 photos",
        figures={"Set5 PSNR-Y": 31.5, "LPIPS": 0.25},
    )
    save_network(build("esc-nano", 2), tmp_path / "n.safetensors", metadata=card.header())
    assert read_card(tmp_path / "n.safetensors") == card
    assert card.psnr == 31.5
    save_network(build("esc-nano", 2), tmp_path / "bare.safetensors")
    assert read_card(tmp_path / "bare.safetensors") is None


def test_the_list_shows_every_model(command: Callable[..., Any], esc_light: Path) -> None:
    ended = command("models")
    assert ended.status == 0
    lines = ended.out.splitlines()
    assert {line.split()[0] for line in lines if line[:1].strip()} >= set(catalog.models())
    (row,) = (line for line in lines if line.startswith("esc-light"))
    assert row.split()[1:5] == ["classic", "×2", "0.60", "M"]
    assert "38.24" in row
    assert "MIT" in row
    assert "cached" in row


def test_the_list_fits_a_narrow_terminal(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, esc_light: Path
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    lines = re.sub("\x1b\\[[0-9;]*m", "", command("models").out).splitlines()
    assert max(map(len, lines)) <= 80
    (row,) = (line.split() for line in lines if line.startswith("esc-light"))
    assert row[:6] == ["esc-light", "×2", "×3", "×4", "cached,", "download"]


def test_download_gives_the_path(command: Callable[..., Any], esc_light: Path) -> None:
    ended = command("models", "download", "esc-light", "--scale", 2)
    assert (ended.status, ended.out.strip()) == (0, str(esc_light))
    assert "×2, ×3, ×4" in command("models", "download", "esc-light", "--scale", 5).err
    assert "Did you mean esc-light" in command("models", "download", "esc-lite").err


def test_a_card_is_shown(command: Callable[..., Any]) -> None:
    assert "esc-nano-real: real-world" in command("models", "show", "esc-nano-real").out
    assert re.search(r"×2: https://\S+X2.pth\n", command("models", "show", "esc").out)


def test_measured_speed_is_listed(command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from convattn.bench import model_speed

    monkeypatch.setattr(model_speed, "_WIDTH", 24)
    monkeypatch.setattr(model_speed, "_HEIGHT", 24)
    ended = command("models", "measure", "esc-nano", "esc-nano-lte", "--device", "cpu")
    assert ended.status == 0
    assert [line.split(":")[0] for line in ended.out.splitlines()] == [
        *(f"esc-nano ×{scale}" for scale in (2, 3, 4)),
        "esc-nano-lte",
    ]
    nano = catalog.models()["esc-nano"]
    assert (model_speed.known_speed(nano, 2) or 0) > 0
    assert model_speed.known_speed(catalog.models()["esc-nano-real"], 4) is None
