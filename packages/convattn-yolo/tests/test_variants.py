from pathlib import Path

import pytest
import ultralytics
import yaml

from convattn.errors import InputError
from convattn_yolo.variants import Variant, find_file, generate, list_bases, parse_name

INSTALLED = Path(ultralytics.__file__).parent / "cfg" / "models"


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("YOLO26-C3k2_ESC.yaml", Variant("yolo26")),
        ("yolo26s-C3k2_ESC-neck.yaml", Variant("yolo26", "s", "neck")),
        ("YOLO26X_seg_c3k2-esc_STRIDE8-Zero.yaml", Variant("yolo26-seg", "x", "stride8", zero=True)),
        ("yolo26m-C3k2_ESC-p2-finest.yaml", Variant("yolo26-p2", "m", "finest")),
        ("models/run2s-x/yolo11n-C3k2_ESC.yml", Variant("yolo11", "n")),
        ("yolo26n.yaml", None),
        ("c3k2_esc.yaml", None),
        ("my-C3k2_ESC.yaml", None),
    ],
)
def test_names(name: str, variant: Variant | None) -> None:
    assert parse_name(name) == variant


def rows_of(name: str, block: str = "C3k2_ESC") -> list[int]:
    description = generate(name, INSTALLED)
    return [i for i, row in enumerate(description["backbone"] + description["head"]) if row[2] == block]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("yolo26n-C3k2_ESC", [2, 4, 6, 8, 13, 16, 19, 22]),
        ("yolo26n-C3k2_ESC-stride8", [4, 6, 8, 13, 16, 19, 22]),
        ("yolo26n-C3k2_ESC-neck", [13, 16, 19, 22]),
        ("yolo26n-C3k2_ESC-finest", [16]),
        ("yolo26n-p2-C3k2_ESC-stride8", [4, 6, 8, 13, 16, 22, 25, 28]),
        ("yolo26n-p2-C3k2_ESC-finest", [19]),
        ("yolo26n-cls-C3k2_ESC", [2, 4, 6, 8]),
        ("yolo26n-seg-C3k2_ESC-finest", [16]),
    ],
)
def test_rows_of_each_variant(name: str, rows: list[int]) -> None:
    assert rows_of(name) == rows
    assert rows_of(f"{name}-zero", "C3k2_ESCBranch") == rows


def test_only_the_blocks_change() -> None:
    for base, file in list_bases(INSTALLED).items():
        description = generate(f"{base}-C3k2_ESC", INSTALLED)
        for row in description["backbone"] + description["head"]:
            row[2] = row[2].replace("C3k2_ESC", "C3k2")
        assert description == yaml.safe_load(file.read_text())


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        (
            "yolo26n-C3k2_ESC-nekc.yaml",
            r"no model yolo26n-C3k2_ESC-nekc.yaml \(did you mean .*C3k2_ESC-neck.yaml",
        ),
        ("yolo26n-p3-C3k2_ESC-fines.yaml", "did you mean yolo26n-p3-C3k2_ESC-finest.yaml"),
        ("yolo26n-p3-finest.yaml", "did you mean yolo26n-p3-C3k2_ESC-finest.yaml"),
        ("yolo26n-p33.yaml", "did you mean yolo26n-p3.yaml"),
        ("yolo26s-seg-pp4-C3k2_ESC.yaml", "did you mean yolo26s-seg-p4-C3k2_ESC.yaml"),
        ("yolo26n-zero.yaml", "did you mean yolo26n-C3k2_ESC-zero.yaml"),
        ("yolo26n-C3k2_ESCbranch.yaml", "did you mean yolo26n-C3k2_ESC-zero.yaml"),
        ("yolo99n-C3k2_ESC.yaml", "names consist of one of yolo11"),
        ("yolo26q-C3k2_ESC.yaml", "size 'q': yolo26 comes in n, s, m, l, x"),
        ("yolo26n-cls-C3k2_ESC-neck.yaml", "yolo26-cls has no C3k2 row for 'neck'"),
        ("yolo26n-cls-C3k2_ESC-finest.yaml", "yolo26-cls has no C3k2 row for 'finest'"),
        ("nowhere/yolo26n-C3k2_ESC.yaml", "There is no file nowhere/yolo26n-C3k2_ESC.yaml"),
    ],
)
def test_what_does_not_exist_is_said(name: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=complaint):
        find_file(name, INSTALLED, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_of_ones_own_is_found_by_any_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "run2s-x" / "yolo26-c3k2_esc-mine.yaml"
    own.parent.mkdir()
    own.write_text("mine")
    for name in ("run2s-x/yolo26l-C3k2_ESC-mine.yaml", own.with_name("YOLO26_C3K2_ESC_MINE.yaml")):
        found = find_file(name, INSTALLED, tmp_path / "cache")
        assert found is not None
        assert found.resolve() == own
    assert find_file(own, INSTALLED, tmp_path / "cache") is None  # Ultralytics opens what exists by itself
    assert not (tmp_path / "cache").exists()


def test_names_that_no_file_can_have_are_none_of_ours(tmp_path: Path) -> None:
    assert find_file("yolo26n-C3k2_ESC.ya\0ml", INSTALLED, tmp_path) is None
    assert not list(tmp_path.iterdir())
