"""The library of compiled kernels: how it is loaded, and what happens without it."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from convattn.ops import (
    conv_attention,
)
from convattn.ops.cpu import library as kernel_library
from convattn.ops.cpu import registration
from convattn.ops.cpu.library import _load, library

from .conftest import (
    assert_exact,
    conv_input,
)

pytestmark = pytest.mark.skipif(library is None, reason="the kernels are not built here")


def test_says_so_where_it_was_not_built(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="compiled kernels"):
        assert _load(tmp_path) is None


def test_works_without() -> None:
    args = conv_input(1, 4, 8, 8)
    with registration.disabled():
        assert not registration.is_available()
        assert not registration.is_supported(*args)
        assert_exact(conv_attention, args)
    assert registration.is_available()


def test_kernels_of_another_version_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_library, "_INTERFACE", -1)
    with pytest.warns(RuntimeWarning, match="rebuild"):
        assert _load(Path(kernel_library.__file__).parent) is None


def test_the_environment_chooses_the_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(kernel_library.__file__).parent
    first = b"sse2" if platform.machine() in ("x86_64", "AMD64") else b"vector128"
    monkeypatch.setenv("CONVATTN_INSTRUCTION_SET", first.decode())
    try:
        loaded = _load(folder)
        assert loaded is not None
        assert loaded.convattn_instruction_set() == first
    finally:
        library.convattn_use_instruction_set(None)
    monkeypatch.setenv("CONVATTN_INSTRUCTION_SET", "abacus")
    with pytest.warns(RuntimeWarning, match="CONVATTN_INSTRUCTION_SET=abacus"):
        assert _load(folder) is None


def test_inference_does_not_wait_for_torchs_compiler_to_be_imported() -> None:
    code = (
        "import sys, torch\n"
        "from convattn.layers import ConvAttention, LargeKernel\n"
        "with torch.inference_mode():\n"
        "    ConvAttention(32, 16)(torch.rand(1, 32, 9, 9), LargeKernel(16)())\n"
        "print('sympy' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
