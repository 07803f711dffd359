"""The package as a whole: what is shipped, what importing it costs, what may import what."""

import ast
import graphlib
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


def test_version_is_the_installed_one() -> None:
    assert convattn.__version__ == metadata.version("convattn")


@pytest.mark.parametrize("module", ["convattn", "convattn.cli"])
def test_import_brings_in_no_framework(module: str) -> None:
    heavy = {"ultralytics", "lightning", "torchvision", "huggingface_hub", "pyvips", "onnx", "matplotlib"}
    script = f"import sys, {module}; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not heavy & set(modules.stdout.split())


IMAGES = "torch, typer, numpy, PIL.Image, pyvips, safetensors.torch"
FRAMEWORKS = {
    "convattn.cli": IMAGES,
    "convattn.inference.upscaler": IMAGES,
    "convattn.bench.suites": IMAGES,
    "convattn.video": f"{IMAGES}, av",
    "convattn.serve.api": f"{IMAGES}, fastapi",
    "convattn.training": f"{IMAGES}, lightning",
    "convattn.cluster": f"{IMAGES}, ray",
}


@pytest.mark.parametrize("module", FRAMEWORKS)
def test_imports_change_nothing_that_others_share(module: str) -> None:
    """What they import themselves, such as torch, is imported first."""
    script = f"""
import importlib, logging, os, sys, warnings
import {FRAMEWORKS[module]}

def shared():
    loggers = {{name: logging.getLogger(name).level for name in ("", "pyvips", "PIL", "torch", "convattn")}}
    flags = torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()
    return dict(os.environ), warnings.filters[:], loggers, flags, sys.excepthook

before = shared()
importlib.import_module({module!r})
print(shared() == before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


ORDER = [
    *(
        "errors",
        "choices",
        "files",
        "progress",
        "ops",
        "layers",
        "models",
        "images",
        "checkpoints",
        "runtimes",
        "inference",
        "video",
    ),
    *("evaluation", "training", "export", "serve", "cluster", "bench", "diagnosis", "cli"),
]
"""The parts of the package; each imports from those before it only."""

ENTRANCES = {"__init__", "__main__", "spandrel"}
"""Modules at the top that import whatever they offer."""


def _modules(path: Path) -> set[str]:
    """The modules that a file imports anywhere, with the names it takes from them."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def _part(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def test_every_part_has_its_place() -> None:
    assert {_part(path) for path in SOURCE.rglob("*.py")} - ENTRANCES <= set(ORDER)


@pytest.mark.parametrize("part", ORDER)
def test_imports_run_downward(part: str) -> None:
    allowed = {*ORDER[: ORDER.index(part) + 1], "__version__"}
    for path in SOURCE.rglob("*.py"):
        if _part(path) == part:
            imported = {name.split(".")[1] for name in _modules(path) if name.startswith("convattn.")}
            assert imported <= allowed, path


def _imports_at_load(path: Path) -> set[str]:
    """The modules of this package that importing a file imports at once."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("convattn"):
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize(
    "root", [SOURCE, ROOT / "packages/convattn-yolo/src/convattn_yolo"], ids=lambda r: r.name
)
def test_no_import_circles(root: Path) -> None:
    files = {
        ".".join((root.name, *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in root.rglob("*.py")
    }
    graph = {name: _imports_at_load(path) & files.keys() - {name} for name, path in files.items()}
    # A package's __init__ may import its own modules, and they each other.
    sorter = graphlib.TopologicalSorter(
        {name: {to for to in targets if not name.startswith(f"{to}.")} for name, targets in graph.items()}
    )
    sorter.prepare()  # raises CycleError


def _canonical(requirement: str) -> str:
    """The distribution that a requirement or a pin names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()


def _requirements(extra: str = "") -> set[str]:
    """What an extra asks for, or where it is empty what every installation does."""
    lines = metadata.requires("convattn") or []
    extras = {line: re.findall(r"extra == ['\"](\w+)", line) for line in lines}
    return {_canonical(line) for line in lines if extras[line] == ([extra] if extra else [])}


EXTRAS = ["train", "video", "heif", "jxl", "export", "spandrel", "serve", "ray", "bench", "docs", "dev"]


def test_every_requirement_is_pinned() -> None:
    pinned = {
        _canonical(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    assert set().union(*map(_requirements, ["", *EXTRAS])) <= pinned


EXTRAS_OF = {
    "video": ["video"],
    "training": ["train"],
    "export": ["export"],
    "serve": ["serve"],
    "cluster": ["ray"],
}
"""The extras whose requirements the modules of a part may import when they are loaded."""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="cannot tell which distribution a module is of")
@pytest.mark.parametrize("part", ORDER)
def test_what_modules_import_is_required(part: str) -> None:
    required = set().union(*map(_requirements, ["", *EXTRAS_OF.get(part, [])]))
    if part == "ops":  # comes with torch where there is a GPU for it
        required.add("triton")
    owners = metadata.packages_distributions()
    for path in (path for path in SOURCE.rglob("*.py") if _part(path) == part):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"convattn"}:
                assert {_canonical(owner) for owner in owners[name]} & required, f"{path}: {name}"


def test_wheel_without_a_compiler_holds_code_data_and_license(tmp_path: Path) -> None:
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
