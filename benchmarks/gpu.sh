#!/usr/bin/env bash
# Test and measure this package on a machine with a GPU, in less than ten minutes:
#     benchmarks/gpu.sh [FOLDER FOR RESULTS]
# It needs a python3 with torch for CUDA and this package's requirements. Packages to compare with
# (mlstm_kernels, fla-core) are used if they are installed. It installs nothing.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-gpu-results}
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader | tee "$out/machine.txt"
# Each step has a time limit, and the next one runs whatever happens. First the self-test.
timeout 90 python3 -c "
import time
from pytorch_forecasting_mlstm import backend
start = time.perf_counter()
print(backend())
print(f'self-test: {time.perf_counter() - start:.1f} s')
" 2>&1 | tee "$out/backend.txt"
# The tests of the kernels, and the theorems of all forms over them, whose heads have one size.
timeout 90 python3 -m pytest -q -p no:cacheprovider tests/ops/triton > "$out/tests.txt" 2>&1
timeout 60 python3 -m pytest -q -p no:cacheprovider -m slow -k triton tests/layers/test_functional.py \
    > "$out/theorems.txt" 2>&1
tail -n 5 "$out/tests.txt" "$out/theorems.txt"
timeout 330 python3 benchmarks/gpu.py --out "$out" --seconds 300 > "$out/log.txt" 2>&1 ||
    tail -n 3 "$out/log.txt"
tail -n 20 "$out/gpu.md"
