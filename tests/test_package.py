"""The package as a whole: what is shipped, what importing it costs, what may import what."""

import ast
import os
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


def _canonical(requirement: str) -> str:
    """The distribution that a requirement or a pin names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()


def _requirements(extra: str = "") -> set[str]:
    """What an extra asks for, or where it is empty what every installation does."""
    lines = metadata.requires("convattn") or []
    extras = {line: re.findall(r"extra == ['\"](\w+)", line) for line in lines}
    return {_canonical(line) for line in lines if extras[line] == ([extra] if extra else [])}


EXTRAS = ["train", "video", "yolo", "export", "serve", "dev"]


def test_every_requirement_is_pinned():
    pinned = {
        _canonical(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    assert set().union(*map(_requirements, ["", *EXTRAS])) <= pinned


@pytest.mark.parametrize(
    ("part", "extras"),
    [("ops", []), ("layers", []), ("sr", ["train", "video"]), ("yolo", ["yolo"]), ("cli", [])],
)
def test_what_modules_import_is_required(part, extras):
    required = set().union(*map(_requirements, ["", *extras]))
    if "yolo" in extras:  # builds on what Ultralytics itself requires
        required |= {_canonical(line) for line in metadata.requires("ultralytics") or []}
    if part == "ops":  # comes with torch where there is a GPU for it
        required.add("triton")
    owners = metadata.packages_distributions()
    for path in (SOURCE / part).rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"convattn"}:
                assert {_canonical(owner) for owner in owners[name]} & required, f"{path}: {name}"


def test_wheel_without_a_compiler_holds_code_data_and_license(tmp_path):
    project = tmp_path / "project"
    left_out = shutil.ignore_patterns(
        ".*", "*.egg-info", "*.so", "__pycache__", "build", "dist", "runs", "tests"
    )
    shutil.copytree(ROOT, project, ignore=left_out)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    environment = os.environ | {"CC": "false", "CXX": "false"}
    subprocess.run([*command, "--wheel-dir", tmp_path, project], check=True, env=environment)
    (wheel,) = tmp_path.glob("*.whl")
    shipped = set(zipfile.ZipFile(wheel).namelist())
    files = (path for path in (project / "src/convattn").rglob("*") if path.is_file())
    assert {path.relative_to(project / "src").as_posix() for path in files} <= shipped
    assert any(name.endswith("licenses/LICENSE") for name in shipped)
