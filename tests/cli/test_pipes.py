"""Standard input and output in place of files."""

import io
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convattn.images.io import Image, write_image

Pipe = Callable[..., tuple[int, bytes, str]]


@pytest.fixture
def pipe(upscale: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Pipe:
    """Upscales bytes; gives exit status, standard output and standard error."""

    def run(data: bytes, *arguments: str) -> tuple[int, bytes, str]:
        result = io.BytesIO()
        monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(data)))
        output = types.SimpleNamespace(buffer=result, flush=lambda: None)
        monkeypatch.setattr("convattn.cli.pipes.sys.stdout", output)
        status, said = upscale("-", *arguments)
        return status, result.getvalue(), said

    return run


def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (3, 12, 16, 4), np.uint8)


def test_images(pipe: Pipe, tmp_path: Path) -> None:
    write_image(Image(pixels()[0]), tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    assert pipe(data, "-o", "-", "--output-format", "webp")[1][8:12] == b"WEBP"
    assert pipe(data)[1].startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a.png"]


def test_animations_stay_animated(pipe: Pipe, tmp_path: Path) -> None:
    pytest.importorskip("av")
    from convattn.video.animation import Animation, read_animation, write_animation

    write_animation(Animation(pixels(), [50, 100, 70]), tmp_path / "a.gif")
    status, data, said = pipe((tmp_path / "a.gif").read_bytes())
    assert (status, said) == (0, "")
    (tmp_path / "b.gif").write_bytes(data)
    assert read_animation(tmp_path / "b.gif").delays == [50, 100, 70]


@pytest.mark.parametrize("head", [b"\x1aE\xdf\xa3matroska", b"\0\0\0\x20ftypisom", b"RIFF\0\0\0\0AVI "])
def test_a_video_needs_a_name(pipe: Pipe, head: bytes) -> None:
    status, data, said = pipe(head + bytes(99))
    assert (status, data) == (1, b"")
    assert "A video cannot go to standard output; name a file" in said


def test_nothing(pipe: Pipe) -> None:
    status, data, said = pipe(b"")
    assert (status, data, "is empty" in said) == (1, b"", True)
