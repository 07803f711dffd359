"""The C++ sources, as an editor, another compiler and another system read them."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import convattn.ops.cpu

KERNELS = Path(convattn.ops.cpu.__file__).parent / "kernels"
OPTIONS = ("-std=c++17", "-fsyntax-only", "-Wno-psabi", "-x", "c++")
HEADERS = sorted({path.name for path in KERNELS.glob("*.h")} - {"targets.inl.h"})  # a part of the .cpp
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


def errors(*command: str) -> list[str]:
    run = subprocess.run(command, capture_output=True, text=True)
    return [line for line in run.stderr.splitlines() if "error" in line]


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("header", HEADERS)
def test_each_header_can_be_read_alone(header: str) -> None:
    assert errors(str(COMPILER), *OPTIONS, str(KERNELS / header)) == []


@pytest.mark.skipif(find_spec("ziglang") is None, reason="needs the package ziglang")
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_kernels_compile_for_windows(machine: str) -> None:
    compiler = (sys.executable, "-m", "ziglang", "c++", "-target", f"{machine}-windows-gnu")
    assert errors(*compiler, *OPTIONS, str(KERNELS / "convattn_kernels.cpp")) == []
