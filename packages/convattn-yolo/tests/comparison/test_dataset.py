"""Data sets, and what Ultralytics cannot use."""

from pathlib import Path

import pytest

from convattn.errors import InputError
from convattn_yolo.comparison.accuracy import count_by_size, ground_truth
from convattn_yolo.comparison.dataset import resolve_dataset


def test_a_relative_path_is_taken_from_the_folder_of_the_data_yaml(
    squares: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    data = resolve_dataset(squares)
    assert Path(data["val"]) == squares.parent / "images" / "val"
    assert count_by_size(ground_truth(data)) == {"tiny": 3, "small": 3, "medium": 3, "large": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "gone.yaml cannot be used"),
        ("path: .\ntrain: nowhere\nval: nowhere\nnames: [a]\n", "cannot be used: .*nowhere"),
        ("path: /nowhere\ntrain: a\nval: b\nnames: [a]\n", "cannot be used: .*/nowhere"),
        ("train: images\nnames: [a]\n", "cannot be used: .*'val:' key missing"),
        ("- a\n- b\n", "is not a data.yaml"),
        ("a: [\n", "cannot be used"),
    ],
)
def test_unusable_data_sets(content: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "gone.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=message) as error:
        resolve_dataset(file)
    assert "\n" not in str(error.value)
