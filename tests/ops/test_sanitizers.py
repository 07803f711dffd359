"""The kernels under the sanitizers of GCC, for a few calls; tools/check_kernels.py makes many."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from convattn.ops.cpu.library import library

TOOL = Path(__file__).parents[2] / "tools/check_kernels.py"


@pytest.mark.skipif(library is None, reason="the kernels are not built here")
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
def test_random_calls_touch_no_memory_of_others() -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), "address", "--calls", "60"], capture_output=True, text=True, timeout=1200
    )
    if "This needs g++" in done.stderr:
        pytest.skip("there is no sanitizer")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "calls without a report" in done.stdout
