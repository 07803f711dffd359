import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from convattn_yolo import startup

STARTUP = Path(__file__).parents[1] / "startup"


def run(code: str, **environment: str) -> str:
    """Return what a fresh interpreter prints."""
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return process.stdout.strip()


def test_the_startup_line_imports_next_to_nothing() -> None:
    line = (STARTUP / "convattn_yolo.pth").read_text()
    code = f"import sys\nbefore = set(sys.modules)\n{line}\nprint(*sorted(set(sys.modules) - before))"
    assert line.count("\n") == 1
    assert line.startswith("import ")
    assert set(run(code).split()) <= {"convattn", "convattn_yolo.startup"}
    assert (STARTUP / "convattn_yolo.start").read_text() == "convattn_yolo.startup:start\n"


@pytest.mark.parametrize(("value", "watching"), [("", "True"), ("1", "True"), ("0", "False")])
def test_the_environment_variable_disables_the_hook(value: str, watching: str) -> None:
    count = "sum(type(finder).__name__ == '_Watcher' for finder in sys.meta_path)"
    line = (STARTUP / "convattn_yolo.pth").read_text()
    code = f"{line}\nprint({count} == 1)\nimport convattn_yolo\nconvattn_yolo.install()\nprint({count})"
    assert run(code, CONVATTN_YOLO_STARTUP=value).split() == [watching, "1"]


def test_a_failure_of_ours_is_only_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(module: ModuleType) -> None:
        raise RuntimeError("broken")

    (tmp_path / "convattn_victim.py").write_text("value = 1")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(startup._EXTENSIONS, "convattn_victim", fail)
    startup.install()
    with pytest.warns(UserWarning, match="convattn-yolo could not extend convattn_victim: broken"):
        import convattn_victim
    assert convattn_victim.value == 1


def test_without_the_package_the_line_does_nothing() -> None:
    line = (STARTUP / "convattn_yolo.pth").read_text()
    assert run(f"import sys\nsys.modules['convattn'] = None\n{line}\nprint('fine')") == "fine"
