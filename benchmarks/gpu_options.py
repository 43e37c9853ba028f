"""Time the Triton kernels of the recurrence with several ways to divide the work, on a GPU.

    python benchmarks/gpu_options.py --out options.csv     # about five minutes, mostly compiling
    python benchmarks/gpu_options.py --only 16,32          # heads of some sizes

The module ``options`` of the kernels holds the chosen ones. For each size of heads, each precision
of products, and each way to divide the work, there is a row for every shape: the time of forward
and backward pass on the device, that of each kernel, and the largest relative difference from the
first row of the shape. Kernels are compiled in several processes first.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.triton import backend, launch
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.types import (
    Inputs,
    OutputGrads,
    mLSTMState,
)

REPEATS = 3


class Shape(NamedTuple):
    """Batch, heads, steps and head size."""

    B: int
    NH: int
    T: int
    d: int


class Options(NamedTuple):
    """How products are rounded and the work is divided."""

    d: int
    precision: str
    sequential: bool
    steps: int
    side: int
    warps: int


SHAPES = (
    *(Shape(64, 4, 512, 16), Shape(1024, 4, 512, 16), Shape(64, 4, 2048, 32)),
    *(Shape(1024, 4, 512, 32), Shape(8, 4, 8192, 64), Shape(64, 4, 2048, 64)),
    Shape(16, 4, 4096, 128),
)
#: Steps of a chunk, side of a block and warps, by head size; for whole sequences and for chunks.
SEQUENCES = {16: ((16, 16, 1), (32, 16, 1), (32, 16, 2)), 32: ((16, 32, 1), (32, 32, 2))}
CHUNKS = {
    16: ((16, 16, 1), (32, 16, 1), (32, 16, 2)),
    32: ((16, 32, 1), (16, 32, 2), (32, 32, 2), (32, 32, 4)),
    64: ((16, 64, 2), (16, 64, 4), (32, 64, 4), (32, 32, 2), (32, 32, 4), (64, 64, 8)),
    128: ((16, 64, 4), (32, 64, 4), (32, 32, 4), (64, 64, 8)),
}


def candidates(sizes: Sequence[int]) -> Iterator[Options]:
    for precision in ("tf32x3", "tf32"):
        for sequential, table in ((True, SEQUENCES), (False, CHUNKS)):
            for d in sizes:
                for plan in table.get(d, ()):
                    yield Options(d, precision, sequential, *plan)


def run(options: Options, shape: Shape, device: str = "cuda") -> tuple[Tensor, ...]:
    """Return h and the gradients of the inputs."""
    chosen = {
        **{"BT": options.steps, "BK": options.side, "BV": options.side},
        **{"PRECISION": options.precision, "num_warps": options.warps, "num_stages": 2},
    }
    draw = torch.Generator(device).manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=draw, device=device)

    B, NH, T, d = shape
    q, k, v, grad = (normal(B, NH, T, d) for _ in range(4))
    inputs = Inputs(q, k / d**0.5, v, normal(B, NH, T), F.logsigmoid(normal(B, NH, T) + 4))
    state = mLSTMState(q.new_zeros(B, NH, d, d), q.new_zeros(B, NH, d), q.new_zeros(B, NH))
    with (
        patch.object(launch, "chunk_options", lambda *args: chosen),
        patch.object(launch, "is_sequential", lambda *args: options.sequential),
    ):
        h, last, saved = backend.chunkwise_fwd(inputs, state, options.steps, False)
        grads = OutputGrads(grad, None, None, None)
        gradients = backend.chunkwise_bwd(
            inputs, state, last.c, last.n, (h, *saved), grads, options.steps, False
        )
    return h, *gradients[:5]


def compile_kernels(options: Options) -> str | None:
    """Compile the kernels; return the error, if there is one."""
    try:
        run(options, Shape(1, 4, 1024, options.d))
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
    return None


def measure(options: Options, shape: Shape) -> dict[str, float]:
    """Return the microseconds of each kernel."""
    run(options, shape)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(REPEATS):
            run(options, shape)
        torch.cuda.synchronize()
    spent: Counter[str] = Counter()
    for event in profiler.events():
        if event.name in launch.load_kernels():
            spent[event.name] += event.self_device_time_total / REPEATS
    return dict(spent)


def difference(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    return max(float((x - y).norm() / y.norm()) for x, y in zip(actual, expected, strict=True))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", default="16,32,64,128", help="head sizes, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("options.csv"), help="file of results")
    parser.add_argument("--processes", type=int, default=8, help="that compile kernels")
    given = parser.parse_args(arguments)
    if unknown := sorted({*given.only.split(",")} - {*map(str, CHUNKS)}):
        parser.error(f"--only must name head sizes of {sorted(CHUNKS)}, got {unknown}")
    sizes = [int(size) for size in given.only.split(",")]
    if not torch.cuda.is_available():
        print("gpu_options.py: torch finds no CUDA device.", file=sys.stderr)
        return 1
    tried = list(candidates(sizes))
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        failures = dict(zip(tried, pool.map(compile_kernels, tried, chunksize=1), strict=True))
    with given.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*Shape._fields, *Options._fields[1:], "us", "difference", "kernels"])
        for shape in SHAPES:
            expected = None
            for options in tried:
                if options.d != shape.d:
                    continue
                failure = failures[options]
                if failure is not None:
                    print(options, failure, file=sys.stderr)
                    continue
                results = run(options, shape)
                expected = results if expected is None else expected
                kernels = measure(options, shape)
                cells = [round(sum(kernels.values()), 1), f"{difference(results, expected):.1e}"]
                details = " ".join(f"{name}={spent:.1f}" for name, spent in kernels.items())
                print(*shape, *options[1:], *cells, details, flush=True)
                writer.writerow([*shape, *options[1:], *cells, details])
                file.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
