"""The kernels compile for GPUs of two generations, without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.triton_kernels import needs_triton

#: What a block of threads may use on devices with compute capability 8.6 and 8.9.
MAX_SHARED = 99 * 1024


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("capability", ["80", "90"])
def test_kernels_compile(capability: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    script = Path(__file__).parents[2] / "helpers" / "compile_triton_kernels.py"
    result = subprocess.run(
        [sys.executable, script, capability],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    lines = result.stdout.splitlines()
    # Eleven for each of ten cases in chunks, six for each of four as sequences; with and without
    # their branches
    assert len(lines) == 2 * (10 * 11 + 4 * 6)
    for line in lines:
        assert int(line.split()[-1]) <= MAX_SHARED, line
