import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convattn.images.io import Image, read_image, write_image
from convattn.inference import batch_jobs


def make(path: str, *shape: int, dtype: type = np.uint8) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    write_image(Image(pixels), path)


def test_one_image(upscale: Callable[..., Any], tmp_path: Path) -> None:
    make("a.png", 9, 7, 4, dtype=np.uint16)
    assert upscale("a.png", "-o", "b.png", "--scale", "2") == (0, "")
    upscaled = read_image("b.png").pixels
    assert upscaled.shape == (18, 14, 4)
    assert upscaled.dtype == np.uint16


def test_results_lie_beside_their_inputs(upscale: Callable[..., Any], tmp_path: Path) -> None:
    make("a.png", 9, 7, 3)
    make("photos/b.jpg", 6, 5, 3)
    assert upscale("a.png", "photos") == (0, "Writing a_x2.png\nWriting photos_x2\n")
    assert read_image("a_x2.png").pixels.shape == (18, 14, 3)
    assert read_image("photos_x2/b.jpg").pixels.shape == (12, 10, 3)
    assert upscale("a.png", "--scale", "1.5", "--output-format", "webp")[0] == 0
    assert read_image("a_x1.5.webp").pixels.shape == (14, 11, 3)


def test_the_self_ensemble(upscale: Callable[..., Any]) -> None:
    make("a.png", 9, 7, 3)
    make("turned.png", 9, 7, 3)
    write_image(Image(np.rot90(read_image("a.png").pixels)), "turned.png")
    assert upscale("a.png", "turned.png", "--self-ensemble")[0] == 0
    turned = np.rot90(read_image("a_x2.png").pixels.astype(int))
    assert np.abs(turned - read_image("turned_x2.png").pixels).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "avif"])
def test_a_folder_in_every_format(upscale: Callable[..., Any], tmp_path: Path, suffix: str) -> None:
    make("in/a.png", 9, 7, 3)
    make("in/b.jpg", 20, 30, 1)
    assert upscale("in", "-o", "out", "--output-format", suffix) == (0, "")
    assert read_image(f"out/a.{suffix}").pixels.shape[:2] == (18, 14)
    assert read_image(f"out/b.{suffix}").pixels.shape[:2] == (40, 60)


@pytest.mark.parametrize("size", [(1, 1), (20, 30_000)])
def test_extreme_images(
    upscale: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    make("a.png", *size, 1)
    if size[1] > 1:  # the network's time is not what is tested
        monkeypatch.setattr("convattn.models.esc.ESC.forward", lambda self, x: x.repeat(1, 1, 2, 2))
    assert upscale("a.png", "-o", "b.png") == (0, "")
    assert read_image("b.png").pixels.shape[:2] == (size[0] * 2, size[1] * 2)


def test_a_image_too_long_for_its_format(upscale: Callable[..., Any]) -> None:
    make("a.png", 2, 30_000, 1)
    status, said = upscale("a.png", "-o", "b.webp")
    assert status == 1
    assert "WebP holds at most 16383 pixels a side, not 60000×4; choose PNG or TIFF." in said


def test_bad_images_do_not_keep_the_others_from_it(upscale: Callable[..., Any], tmp_path: Path) -> None:
    make("in/good.png", 6, 6, 3)
    make("in/cut.png", 60, 60, 3)
    (tmp_path / "in/cut.png").write_bytes((tmp_path / "in/cut.png").read_bytes()[:2000])
    (tmp_path / "in/empty.png").touch()
    (tmp_path / "in/text.png").write_text("text")
    status, said = upscale("in", "missing.png", "-o", "out")
    assert status == 1
    for sentence in (
        "in/cut.png is damaged",
        "in/empty.png is empty",
        "in/text.png is not",
        "no file missing.png",
    ):
        assert said.count(sentence) == 1
    assert said.splitlines()[-1] == "convattn: 4 of 5 images failed."
    assert "Traceback" not in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.png"]


def test_lost_frames_of_an_animation_are_a_warning(upscale: Callable[..., Any]) -> None:
    from PIL import Image

    frames = [Image.new("RGB", (5, 5), color) for color in ("red", "blue")]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:])
    status, said = upscale("a.gif", "-o", "b.png")
    assert (status, said) == (0, "Warning: a.gif holds 2 frames or pages; only the first is read.\n")


def test_results_that_exist(upscale: Callable[..., Any]) -> None:
    make("a.png", 6, 6, 3)
    make("b.png", 6, 6, 3)
    status, said = upscale("a.png", "-o", "b.png")
    assert status == 1
    assert "b.png exists already" in said
    assert upscale("a.png", "-o", "b.png", "--existing", "skip") == (0, "")
    assert read_image("b.png").pixels.shape == (6, 6, 3)
    assert upscale("a.png", "-o", "b.png", "--existing", "overwrite") == (0, "")
    assert read_image("b.png").pixels.shape == (12, 12, 3)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["a.png", "-o", "a.png", "--existing", "overwrite"], "would overwrite the input a.png"),
        (["a.png", "-o", "b.png", "--model", "esc-huge"], "no weights 'esc-huge'"),
        (["a.png", "-o", "b.png", "--scale", "3"], "upscales by 2, not by 3"),
        (["a.png", "-o", "a.png/out"], "cannot be made: Not a directory"),
        (["a.png", "-o", "b.png", "--tile", "big"], "neither auto nor a number"),
        (["nothing", "-o", "out"], "holds no images"),
        (["a.png", "-o", "b.png", "--fidelity", "0.5"], "no weights for fidelity"),
    ],
)
def test_each_mistake_gets_one_sentence(
    upscale: Callable[..., Any], tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    make("a.png", 6, 6, 3)
    (tmp_path / "nothing").mkdir()
    before = (tmp_path / "a.png").read_bytes()
    status, said = upscale(*arguments)
    assert status == 1
    assert complaint in said
    assert said.count("\n") == 1
    assert (tmp_path / "a.png").read_bytes() == before
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["a.png", "-o", "b.png", "--scale", "abc"], "--scale"),
        (["a.png", "-o", "b.png", "--quality", "0"], "--quality"),
        (["a.png", "-o", "b.png", "--wide", "9"], "--wide"),
        (["a.png", "-o"], "-o"),
    ],
)
def test_words_that_are_no_command_get_one_sentence(
    upscale: Callable[..., Any], arguments: list[str], complaint: str
) -> None:
    status, said = upscale(*arguments)
    assert status == 2
    assert re.fullmatch(rf"convattn: .*{complaint}.*[.?] See convattn --help\.\n", said)


def test_a_folder_without_the_right_to_write(
    upscale: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("a.png", 6, 6, 3)
    access = os.access
    monkeypatch.setattr(batch_jobs.os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    status, said = upscale("a.png", "-o", "out")
    assert status == 1
    assert "out cannot be written; choose another" in said


def test_interrupted_it_leaves_nothing_behind(
    upscale: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyvips

    make("a.png", 6, 6, 3)

    def interrupt(image: Any, path: Path, **options: Any) -> None:
        with open(path, "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pyvips.Image, "pngsave", interrupt, raising=False)
    status, said = upscale("a.png", "-o", "out")
    assert status == 130
    assert "Traceback" not in said
    assert not list((tmp_path / "out").iterdir())


def test_help_says_what_there_is() -> None:
    script = "import sys; sys.argv[1:] = ['upscale', '--help']; from convattn.cli import main; main()"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    for option in ("--output", "--scale", "--model", "--tile", "--precision", "--device", "--existing"):
        assert option in said
