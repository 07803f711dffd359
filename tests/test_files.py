"""Atomic writing, litter of dead processes, and natural order."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convattn.errors import InputError
from convattn.files import find_files, natural_key, remove_litter, replacing, short_name


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text(str(1 / 0))
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_a_failed_file_frees_the_disk_although_its_writer_has_it_open(tmp_path: Path) -> None:
    opened = []

    def fail(path: Path) -> None:
        opened.append(path.open("wb", buffering=0))
        opened[0].write(b"x" * 1000)
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left"), replacing(tmp_path / "a") as temporary:
        fail(temporary)
    assert os.fstat(opened[0].fileno()).st_size == 0
    opened[0].close()


@pytest.mark.parametrize("name", ["a" * 251 + ".png", "é" * 125 + ".png", "😀" * 60 + ".png"])
def test_names_may_be_as_long_as_the_file_system_allows(tmp_path: Path, name: str) -> None:
    with replacing(tmp_path / name) as temporary:
        temporary.write_text("whole")
    assert [file.name for file in tmp_path.iterdir()] == [name]


@given(start=st.text(st.characters(codec="utf-8", exclude_characters="\0/"), max_size=300))
def test_short_names_fit_and_end_as_asked(start: str) -> None:
    name = short_name(start, ".123.png")
    assert len(name.encode()) <= 255
    assert name.endswith(".123.png")
    assert start.startswith(name.removesuffix(".123.png"))


def test_only_the_litter_of_dead_processes_is_removed(tmp_path: Path) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    litter = tmp_path / f".a.{dead.stdout.strip()}.png"
    kept = [tmp_path / name for name in (f".b.{os.getpid()}.png", ".config", "a.999999.png", ".v1.2.png.bak")]
    for path in (litter, *kept):
        path.touch()
    remove_litter(tmp_path)
    assert not litter.exists()
    assert all(path.exists() for path in kept)
    remove_litter(tmp_path / "missing")


def test_a_locked_file_is_never_litter(tmp_path: Path) -> None:
    """The writer may run in a container, where its number means nothing here."""
    fcntl = pytest.importorskip("fcntl")
    path = tmp_path / ".a.99999999.png"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        remove_litter(tmp_path)
        assert path.exists()
    remove_litter(tmp_path)
    assert not path.exists()


def test_a_killed_writer_leaves_nothing_after_the_next_job(tmp_path: Path) -> None:
    script = (
        "import sys, os, signal\nfrom convattn.files import replacing\n"
        "with replacing(sys.argv[1]) as path:\n"
        "    path.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "a.png"], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    remove_litter(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"), replacing(tmp_path / "no" / "a"):
        pass
    with pytest.raises(InputError, match="it is a folder"), replacing(tmp_path):
        pass


@given(numbers=st.lists(st.integers(0, 10**6), min_size=1, unique=True))
def test_numbers_in_names_count_as_numbers(numbers: list[int]) -> None:
    names = sorted((Path(f"frame{number}.png") for number in numbers), key=natural_key)
    assert names == [Path(f"frame{number}.png") for number in sorted(numbers)]


def test_hidden_files_and_folders_are_not_found(tmp_path: Path) -> None:
    for name in ("b", "a/10", "a/9", ".c", ".d/e"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in find_files(tmp_path)] == ["a/9", "a/10", "b"]
    with pytest.raises(InputError, match="not a folder"):
        find_files(tmp_path / "b")
