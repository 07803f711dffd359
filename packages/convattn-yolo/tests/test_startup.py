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


@pytest.mark.parametrize("order", ["ours, theirs", "theirs, ours"])
def test_another_finder_that_delegates_too_does_not_recurse(order: str, tmp_path: Path) -> None:
    """As when an older release of this package is loaded in the same process."""
    code = f"""
import sys
from convattn_yolo import startup

class Other:
    def find_spec(self, name, path=None, target=None):
        others = [finder for finder in sys.meta_path if finder is not self]
        return next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)

ours, theirs = startup._Watcher(), Other()
startup._EXTENSIONS["convattn_victim"] = lambda module: print("extended")
sys.meta_path = [{order}, *(f for f in sys.meta_path if not isinstance(f, startup._Watcher))]
sys.path.insert(0, {str(tmp_path)!r})
import convattn_victim
"""
    (tmp_path / "convattn_victim.py").write_text("value = 1")
    assert run(code) == "extended"
