"""Results without a given name lie beside their inputs."""

import os
from pathlib import Path
from typing import Any

import pytest

from convattn.errors import InputError
from convattn.images.sizes import ScaleRequest
from convattn.inference.result_names import beside

TWO = ScaleRequest((2, 2))


@pytest.mark.parametrize(
    ("given", "request_", "format", "expected"),
    [
        ("photo.jpg", TWO, None, "photo_x2.jpg"),
        ("a.b/photo.JPG", TWO, None, "a.b/photo_x2.JPG"),
        ("photo.jpg", ScaleRequest((2.5, 2.5)), "png", "photo_x2.5.png"),
        ("photo.bmp", ScaleRequest((2, 3)), None, "photo_x2x3.png"),
        ("photo.jpg", ScaleRequest(size=(1080, 1920), exact=True), ".WEBP", "photo_1920x1080.webp"),
        ("photo.jpg", ScaleRequest(size=(None, 1920)), None, "photo_1920x.jpg"),
        ("clip.mp4", TWO, None, "clip_x2.mp4"),
        ("clip.gif", TWO, None, "clip_x2.gif"),
        ("photos", TWO, None, "photos_x2"),
        ("photos/", TWO, None, "photos_x2"),
    ],
)
def test_names(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: str,
    request_: Any,
    format: str | None,
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert [os.path.normpath(name) for _, name in beside([given], request_, format)] == [
        os.path.normpath(expected)
    ]


def test_patterns_and_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("b.png", "a.png"):
        (folder / name).touch()
    assert beside(["*.png"], TWO) == [("a.png", "a_x2.png"), ("b.png", "b_x2.png")]
    assert beside(["."], TWO) == [(".", str(tmp_path / "here_x2"))]
    with pytest.raises(InputError, match="No file matches"):
        beside(["*.jpg"], TWO)


def test_long_names_stay_within_the_limit_of_file_systems() -> None:
    ((_, name),) = beside(["ä" * 125 + ".png"], TWO)
    assert len(name.encode()) <= 255
    assert name.endswith("ä_x2.png")
