"""Saved networks come back, and a failed write leaves the old file."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from convattn.checkpoints.loading import load_network, save_network
from convattn.errors import InputError
from convattn.models.esc import ESC
from convattn.models.esc_lte import ESCLTE
from convattn.models.esc_real import ESCReal
from convattn.models.registry import NAMES, build
from convattn.models.upsamplers import DySample, NearestConvUpsampler

from .conftest import LAYOUTS, assert_same_network, small


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    """Networks of any shape."""
    heads = draw(st.integers(1, 3))
    dim = heads * draw(st.integers(2, 5))
    hidden = st.integers(1, 2 * dim).map(lambda channels: (channels + 0.5) / dim)
    features: dict[str, Any] = dict(
        dim=dim,
        heads=heads,
        large_kernel_dim=draw(st.integers(4, max(4, dim))),
        large_kernel_size=draw(st.sampled_from([3, 5, 13])),
        blocks=draw(st.integers(1, 2)),
        layers=draw(st.integers(1, 3)),
        window_size=draw(st.integers(1, 4)),
        ffn_ratio=draw(hidden),
        first_ffn_ratio=draw(hidden),
        norm=draw(st.booleans()),
        factored=draw(st.booleans()),
    )
    features["dim"] = dim = max(dim, features["large_kernel_dim"])
    features["heads"] = heads if dim % heads == 0 else 1
    kind = draw(st.sampled_from([ESC, ESCReal, ESCLTE]))
    if kind is ESCLTE:
        return small(ESCLTE, hidden=2 * draw(st.integers(1, 4)), **features)
    if kind is ESC:
        mode = "bicubic" if features["factored"] else "nearest"
        return small(ESC, scale=draw(st.integers(1, 5)), image_skip=mode, **features)
    if draw(st.booleans()):
        convs = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
        width = draw(st.integers(1, 6))
        upsampler = partial(NearestConvUpsampler, convs=convs, width=width)
        return small(ESCReal, upsampler=upsampler, **features)
    groups = draw(st.sampled_from([n for n in range(1, dim + 1) if dim % n == 0]))
    scale = draw(st.integers(1, 5))
    return small(ESCReal, upsampler=partial(DySample, scale=scale, groups=groups), **features)


@given(networks(), st.sampled_from(LAYOUTS))
@settings(max_examples=30, deadline=None)
def test_round_trip(network: nn.Module, target: tuple[str, str]) -> None:
    layout, suffix = target
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"network{suffix}"
        save_network(network, path, layout=layout)
        state = torch.get_rng_state()
        loaded = load_network(path)
        assert torch.equal(torch.get_rng_state(), state)  # loading draws no random numbers
    assert_same_network(loaded, network)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize(("layout", "suffix"), LAYOUTS[:2])
def test_header(layout: str, suffix: str, tmp_path: Path) -> None:
    save_network(build("esc-nano", 3), tmp_path / f"n{suffix}", layout=layout, metadata={"seed": 5})
    with safe_open(tmp_path / f"n{suffix}", "pt") as file:
        header = file.metadata()
    assert header["format"] == {"convattn": "convattn", "reference": "pt"}[layout]
    assert (header["network"], header["scale"], header["seed"]) == ("esc-nano", "3", "5")
    assert header["version"]


@pytest.mark.parametrize("name", NAMES)
def test_header_names_the_network(name: str, tmp_path: Path) -> None:
    save_network(build(name, 4), tmp_path / "network.safetensors")
    with safe_open(tmp_path / "network.safetensors", "pt") as file:
        assert file.metadata()["network"] == name


def test_compiled_network_is_saved_under_its_own_names(tmp_path: Path) -> None:
    network = small()
    save_network(torch.compile(network), tmp_path / "network.safetensors")
    assert_same_network(load_network(tmp_path / "network.safetensors"), network)


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "network.safetensors"
    save_network(small(), path)
    before = path.read_bytes()

    write = Path.write_bytes

    def full(file: Path, data: bytes) -> int:
        write(file, b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left on device"):
        save_network(small(), path)
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    ("layout", "file"),
    [("convattn", "x.pth"), ("reference", "x.onnx"), ("convattn", "missing/x.safetensors")],
)
def test_unusable_target_is_refused(layout: str, file: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="x"):
        save_network(small(), tmp_path / file, layout=layout)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_saved_weights_are_as_readable_as_any_new_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    save_network(build("esc-nano", 2), tmp_path / name, layout="reference")
    assert (tmp_path / name).stat().st_mode == (tmp_path / "other").stat().st_mode
