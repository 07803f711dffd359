"""The package as a whole: what is shipped, what importing it costs, what may import what."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import convattn

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "convattn"


def test_version_is_the_installed_one():
    assert convattn.__version__ == metadata.version("convattn")


@pytest.mark.parametrize("module", ["convattn", "convattn.cli"])
def test_import_brings_in_no_framework(module):
    heavy = {"ultralytics", "lightning", "torchvision", "huggingface_hub", "pyvips", "onnx", "matplotlib"}
    script = f"import sys, {module}; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not heavy & set(modules.stdout.split())


def _imported_parts(path: Path) -> set[str]:
    """The parts of the package (ops, layers, …) that a file imports anywhere."""
    package = ("convattn", *path.relative_to(SOURCE).parent.parts)
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return {name.split(".")[1] for name in names if name.startswith("convattn.")}


@pytest.mark.parametrize(
    ("part", "above"),
    [
        ("ops", {"layers", "sr", "yolo", "cli"}),
        ("layers", {"sr", "yolo", "cli"}),
        ("sr", {"yolo", "cli"}),
        ("yolo", {"sr", "cli"}),
    ],
)
def test_imports_run_downward(part, above):
    for path in (SOURCE / part).rglob("*.py"):
        assert not _imported_parts(path) & above, path


def test_every_requirement_is_pinned():
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    required = [re.match(r"[\w.-]+", line) for line in metadata.requires("convattn") or []]
    assert {_canonical(match[0]) for match in required if match} <= {_canonical(name) for name in pinned}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_wheel_holds_code_data_and_licence(tmp_path):
    project = tmp_path / "project"
    left_out = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist", "runs", "tests")
    shutil.copytree(ROOT, project, ignore=left_out)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", tmp_path, project], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    shipped = set(zipfile.ZipFile(wheel).namelist())
    files = (path for path in (project / "src/convattn").rglob("*") if path.is_file())
    assert {path.relative_to(project / "src").as_posix() for path in files} <= shipped
    assert any(name.endswith("licenses/LICENSE") for name in shipped)
