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

failed=0
# Each step has a time limit, and the next one runs whatever happens; one that fails is named, and
# fails the script at its end.
step() { # NAME SECONDS FILE COMMAND...
    local name=$1 seconds=$2 file=$3 status
    shift 3
    timeout "$seconds" "$@" > "$out/$file" 2>&1
    status=$?
    tail -n 5 "$out/$file"
    if [ "$status" -eq 124 ]; then
        echo "$name: timed out after $seconds s" | tee -a "$out/$file"
    elif [ "$status" -ne 0 ]; then
        echo "$name: failed with status $status" | tee -a "$out/$file"
    fi
    [ "$status" -eq 0 ] || failed=1
}

step machine 30 machine.txt \
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
step self-test 120 backend.txt python3 -c "
import time
from pytorch_forecasting_mlstm import backend
start = time.perf_counter()
info = backend()
print(info)
print(f'self-test: {time.perf_counter() - start:.1f} s')
raise SystemExit(info.cuda is None or info.cuda.name != 'triton')
"
# Most of their time is Triton's compiler.
processes=()
python3 -c "import xdist" 2> /dev/null && processes=(-n "$(nproc)")
step tests 200 tests.txt python3 -m pytest -q -p no:cacheprovider "${processes[@]}" \
    -m "cuda or not slow" tests/ops/triton
step benchmark 240 log.txt python3 benchmarks/gpu.py --out "$out" --seconds 210
[ ! -f "$out/gpu.md" ] || tail -n 20 "$out/gpu.md"
exit "$failed"
