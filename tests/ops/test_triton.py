"""The Triton backend of window_attention: its cases in a process of their own, and its kernels compiled."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from convattn.ops.triton import operators

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def test_cases() -> None:
    interpreted = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=short"]
    run = subprocess.run(
        [*command, str(Path(__file__).with_name("triton_cases.py"))],
        env={**os.environ, "OMP_NUM_THREADS": "1", **interpreted},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr


class Driver:
    """Stands for a device that is not there; kernels can be compiled for it but not started."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return self.target.arch

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.mark.parametrize(("capability", "dtype"), [(80, torch.bfloat16), (90, torch.float16)])
def test_kernels_compile_and_do_not_spill(
    capability: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    compiled = []

    def compile_only(self: Any, *args: Any, warmup: Any, **options: Any) -> Any:
        compiled.append(run(self, *args, warmup=True, **options))

    run = JITFunction.run
    monkeypatch.setattr(JITFunction, "run", compile_only)
    monkeypatch.setattr(driver, "_active", Driver(capability))
    qkv = torch.empty(1, 192, 33, 32, dtype=dtype).to(memory_format=torch.channels_last)
    args = (*qkv.chunk(3, 1), torch.empty(4, 63**2))
    out, lse = operators._forward(*args)
    operators._backward(*args, out, lse, out)
    assert len(compiled) == 4
    for kernel in compiled:
        binary = tmp_path / "kernel.cubin"
        binary.write_bytes(kernel.asm["cubin"])
        usage = subprocess.run([CUOBJDUMP, "-res-usage", binary], capture_output=True, text=True).stdout
        assert re.search(r"REG:\d+ STACK:0 .* LOCAL:0", usage), usage
        assert kernel.metadata.shared <= 48 * 1024  # so that several programs share a multiprocessor
