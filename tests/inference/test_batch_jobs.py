import os
from pathlib import Path

import pytest

from convattn.errors import InputError
from convattn.inference.batch_jobs import plan


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with empty files by the names of images."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "a.jpg", "A.webp", "deep/a.png", "deep/b.gif", "deep/deeper/c.tif"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.touch()
    return tmp_path


def planned(inputs: list[str], output: str | None, format: str | None = None) -> dict[str, str]:
    return {job.source.as_posix(): job.target.as_posix() for job in plan(inputs, output, format)}


@pytest.mark.parametrize(
    ("inputs", "output", "format", "expected"),
    [
        (["a.png"], "b.jpg", None, {"a.png": "b.jpg"}),
        (["a.png"], "b.JPG", "jpg", {"a.png": "b.JPG"}),
        (["a.png"], "new/b.tif", None, {"a.png": "new/b.tif"}),
        (["a.png"], "out", None, {"a.png": "out/a.png"}),
        (["a.png"], "deep", "webp", {"a.png": "deep/a.webp"}),
        (["a.png", "a.jpg"], "out", None, {"a.png": "out/a.png", "a.jpg": "out/a.jpg"}),
        (["a.png", "a.jpg"], "out", ".PNG", {"a.png": "out/a.png", "a.jpg": "out/a-2.png"}),
        (["a.png", "./a.png"], "out", None, {"a.png": "out/a.png"}),
        (["a.jpg", "A.webp"], "out", "png", {"a.jpg": "out/a.png", "A.webp": "out/A-2.png"}),
        (["a.png", "deep/a.png"], "out", None, {"a.png": "out/a.png", "deep/a.png": "out/a-2.png"}),
        (["deep/b.gif"], "out", None, {"deep/b.gif": "out/b.png"}),
        (["a.*"], "out", None, {"a.jpg": "out/a.jpg", "a.png": "out/a.png"}),
        (["**/*.png"], "out", None, {"a.png": "out/a.png", "deep/a.png": "out/a-2.png"}),
        (["missing.png", "a.png"], "out", None, {"missing.png": "out/missing.png", "a.png": "out/a.png"}),
    ],
)
def test_names_of_results(
    folder: Path, inputs: list[str], output: str, format: str | None, expected: dict[str, str]
) -> None:
    assert planned(inputs, output, format) == expected


def test_what_lies_in_a_folder_keeps_its_place(folder: Path) -> None:
    assert planned(["deep"], "out") == {
        "deep/a.png": "out/a.png",
        "deep/b.gif": "out/b.png",
        "deep/deeper/c.tif": "out/deeper/c.tif",
    }


def test_earlier_results_are_no_inputs(folder: Path) -> None:
    assert not any(source.startswith("deep/") for source in planned(["."], "deep"))
    with pytest.raises(InputError, match="overwrite the input"):
        plan(["deep"], "deep")


def test_the_output_folder_may_hold_the_inputs(folder: Path) -> None:
    assert planned(["deep/deeper"], "deep") == {"deep/deeper/c.tif": "deep/c.tif"}
    assert planned(["deep/deeper/*.tif"], ".") == {"deep/deeper/c.tif": "c.tif"}


def test_a_final_slash_makes_a_folder(folder: Path) -> None:
    assert planned(["a.png"], "results-v1.5/") == {"a.png": "results-v1.5/a.png"}


def test_a_name_that_looks_like_a_pattern_is_taken_at_its_word(folder: Path) -> None:
    (folder / "a[1].png").touch()
    assert planned(["a[1].png"], "b.png") == {"a[1].png": "b.png"}


@pytest.mark.parametrize(
    ("inputs", "output", "format", "complaint"),
    [
        (["a.png"], "a.png", None, "overwrite the input a.png"),
        (["a.png"], "link.png", None, "overwrite the input link.png"),
        (["a.png", "deep/a.png"], ".", None, "overwrite the input a.png"),
        (["a.jpg", "a.png"], ".", "png", "overwrite the input a.png"),
        (["deep/b.gif"], "deep/b.gif", None, "overwrite the input"),
        (["a.png"], "b.bmp", None, "must end in .png, .jpg"),
        (["a.png", "a.jpg"], "b.png", None, "give a folder instead"),
        (["deep"], "b.png", None, "give a folder instead"),
        (["a.png"], "b.png", "jpg", "does not end in .jpg"),
        (["a.png"], "out", "bmp", "bmp cannot be written; choose png, jpg"),
        (["*.bmp"], "out", None, r"No file matches \*.bmp"),
        (["empty"], "out", None, "empty holds no images"),
    ],
)
def test_plans_that_cannot_be(
    folder: Path, inputs: list[str], output: str, format: str | None, complaint: str
) -> None:
    os.link("a.png", "link.png")
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match=complaint):
        plan(inputs, output, format)
    assert not (folder / "out").exists()
