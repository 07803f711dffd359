"""The built wheel: what it holds, and that its start-up files work from a site-packages folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("*.egg-info", "__pycache__", "build", "dist", "examples", "tests")
    shutil.copytree(PROJECT, folder / "project", ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, folder / "project"], check=True)
    (file,) = folder.glob("convattn_yolo-*.whl")
    return file


def test_holds_code_startup_files_and_license(wheel: Path) -> None:
    shipped = set(zipfile.ZipFile(wheel).namelist())
    source = PROJECT / "src"
    code = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    assert code <= shipped
    assert {"convattn_yolo.pth", "convattn_yolo.start", "convattn_yolo/py.typed"} <= shipped
    assert "convattn_yolo/comparison/report.html.j2" in shipped
    assert any(name.endswith("licenses/LICENSE") for name in shipped)


def test_its_startup_file_registers_the_block(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        f"import site, sys\nsite.addsitedir({str(tmp_path)!r})\n"
        "assert 'ultralytics' not in sys.modules and 'torch' not in sys.modules\n"
        "from ultralytics import YOLO\n"
        "import convattn_yolo\n"
        "print(convattn_yolo.__file__)\n"
        "print(type(YOLO('yolo26n-C3k2_ESC-finest.yaml').model.model[16]).__name__)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "CONVATTN_YOLO_STARTUP"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    path, block = run.stdout.splitlines()[-2:]
    assert Path(path).is_relative_to(tmp_path)
    assert block == "C3k2_ESC"
