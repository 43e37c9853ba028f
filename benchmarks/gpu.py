"""Speed, memory and numbers on a GPU, beside other packages where these are installed.

    python benchmarks/gpu.py --out results                 # on a GPU, below ten minutes
    python benchmarks/gpu.py --device cpu --quick          # small sizes, to try the script
    python benchmarks/gpu.py --only layer,training         # some sections

It compares the Triton kernels with PyTorch, cuDNN's LSTM, attention, NX-AI's kernels (package
mlstm_kernels) and fla's simple GLA, and times Lightning's step of mLSTMTime and its forecasts. A
figure that cannot be measured is the error that it raised. Sections stop when --seconds are used
up. The floor of a recurrence is the time of reading and writing every tensor once, at the bandwidth
of a large copy. Times are medians, from events of the device. Rows go to gpu.csv and gpu.md.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from _gpu_bench import Bench, Row
from _gpu_model import measure_forecast, measure_training
from _gpu_recurrence import measure_layer, measure_recurrence

from pytorch_forecasting_mlstm import backend

SECTIONS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "training": measure_training,
    "forecast": measure_forecast,
    "recurrence": measure_recurrence,
    "layer": measure_layer,
}


def describe(bench: Bench) -> Iterator[Row]:
    """Name the device and the versions."""
    on_gpu = bench.device.type == "cuda"
    name = torch.cuda.get_device_name(bench.device) if on_gpu else "CPU"
    yield Row("machine", "device", name, "", "")
    yield Row("machine", "backend", str(backend()), "", "")
    for package in ("torch", "triton", "lightning", "mlstm_kernels", "fla-core"):
        try:
            yield Row("machine", "version", package, version(package), "")
        except PackageNotFoundError:
            yield Row("machine", "version", package, "not installed", "")


def write_results(rows: Sequence[Row], folder: Path) -> None:
    """Write all rows as CSV and as a Markdown table."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = [[*row[:3], format_figure(row.figure), row.unit] for row in rows]
    with (folder / "gpu.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([Row._fields, *cells])
    lines = [Row._fields, ["---"] * len(Row._fields), *cells]
    text = "\n".join(f"| {' | '.join(line).replace('  ', ' ')} |" for line in lines)
    (folder / "gpu.md").write_text(f"{text}\n", encoding="utf-8")


def format_figure(figure: float | str) -> str:
    return figure if isinstance(figure, str) else f"{figure:.4g}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the script")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of gpu.csv and gpu.md")
    parser.add_argument("--seconds", type=float, default=540.0, help="when to stop")
    options = parser.parse_args(arguments)
    names = options.only.split(",")
    unknown = sorted({*names} - {*SECTIONS})
    if unknown:
        parser.error(f"--only must name sections of {', '.join(SECTIONS)}, got {unknown}")
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu.py: torch finds no CUDA device; pass --device cpu.", file=sys.stderr)
        return 1
    deadline = time.monotonic() + options.seconds
    bench = Bench(torch.device(options.device), options.quick, deadline)
    rows: list[Row] = []
    for measure in (describe, *(SECTIONS[name] for name in names)):
        for row in measure(bench):
            print(*row[:3], format_figure(row.figure), row.unit, sep="\t", flush=True)
            rows.append(row)
            write_results(rows, options.out)  # what is measured survives an interruption
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
