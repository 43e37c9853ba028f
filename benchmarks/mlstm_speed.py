"""Speed and memory of the mLSTM, beside torch.nn.LSTM and the models of pytorch-forecasting.

    python benchmarks/mlstm_speed.py                               # all sections, on the CPU
    python benchmarks/mlstm_speed.py --only layer,scaling --csv speed.csv
    python benchmarks/mlstm_speed.py --kernel                      # with the kernel, too
    python benchmarks/mlstm_speed.py --kernel --device cuda        # beside cuDNN's LSTM
    python benchmarks/mlstm_speed.py --quick                       # small sizes, under a minute

Before any timing, values and gradients of the chunkwise form are compared with the recurrent form,
and the layer with a loop over its cells. If they differ, nothing is timed and the exit status is 1.

Times are medians, in float32 without TF32. Compared modules run alternately in one process, so that
other load on the machine slows them down alike. Forward and backward compute the gradients of the
input and of all parameters from a fixed gradient of the output.

Memory is what forward and backward need beyond the module, its input and the gradient of its
output. On the CPU it is the growth of the resident set to its peak, as counted by Linux, which
includes buffers of libraries. It is measured after a warm-up in a fresh process, whose allocator
returns every large freed block: otherwise a figure would depend on what ran before. On CUDA it is
the peak of allocated tensors.

The ratio is the figure divided by the figure it is compared with.

The section nx-ai is empty unless NX-AI's package mlstm_kernels is installed.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import logging
import math
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from _nx_ai import time_nx_ai
from _speed_bench import (
    COLUMNS,
    FAST_FROM,
    HEADS,
    SIZES,
    Bench,
    Row,
    Workload,
    batch_for,
    forward_backward,
    our_layer,
    sequence,
    shapes,
)
from _speed_checks import (
    Shape,
    draw_problem,
    naive_chunkwise,
    require_correct,
    require_correct_layer,
    require_correct_naive_form,
)
from _speed_memory import measure_lengths, measure_memory
from _speed_models import time_training_step
from pytorch_forecasting.layers import mLSTMLayer as StockLayer
from torch import Tensor, nn

from pytorch_forecasting_mlstm import backend, mLSTMCell, use_kernel
from pytorch_forecasting_mlstm.layers.functional import mlstm_chunkwise

CALLS = 100  # of a cell in one measurement


def time_layer(bench: Bench) -> Iterator[Row]:
    for case, T, B, hidden in shapes(bench):
        x = sequence(T, B, hidden, bench.device)
        modules = (
            nn.LSTM(hidden, hidden).to(bench.device),
            our_layer(hidden, bench.device),
            our_layer(hidden, bench.device, layer_norm=True),
        )
        workloads = [forward_backward(module, x) for module in modules]
        if bench.kernel:  # time them without the kernel as well
            workloads += [without_kernel(workload) for workload in workloads[1:]]
        lstm, *ours = bench.medians(*workloads)
        if bench.kernel:
            targets = (0.45, 0.6) if T >= FAST_FROM else (0.8, math.inf)
        else:
            targets = (0.75, 1.0) if T >= FAST_FROM else (1.2, math.inf)
        targets = (*targets, math.inf, math.inf)
        names = ["mLSTMLayer", "mLSTMLayer, layer norm"]
        if bench.kernel:
            names = [f"{name}, kernel" for name in names] + names
        for name, figure, target in zip(names, ours, targets, strict=False):
            yield Row(case, name, figure, "nn.LSTM", lstm, maximum=target)


def without_kernel(workload: Workload) -> Workload:
    def run() -> None:
        use_kernel(False)
        try:
            workload()
        finally:
            use_kernel()

    return run


def time_chunkwise(bench: Bench) -> Iterator[Row]:
    for case, T, B, hidden in shapes(bench):
        shape = Shape(B, HEADS, T, hidden // HEADS, hidden // HEADS)
        inputs = draw_problem(shape, torch.float32, bench.device)[:5]
        ours, plain = bench.medians(
            *(forward_backward(form, *inputs) for form in (mlstm_chunkwise, naive_chunkwise))
        )
        yield Row(case, "mlstm_chunkwise", ours, "plain autograd", plain, maximum=0.6)


def time_stock(bench: Bench) -> Iterator[Row]:
    for T in bench.choose((FAST_FROM, 720), (96,)):
        for batch, hidden in SIZES:
            x = sequence(T, batch, hidden, bench.device)
            stock = StockLayer(hidden, hidden, 1, dropout=0.0, layer_norm=False).to(bench.device)
            layers = (stock, our_layer(hidden, bench.device))
            workloads = (forward_backward(layer, x) for layer in layers)
            slow, fast = bench.medians(*workloads, rounds=5)
            case = f"T {T}, batch {batch}, hidden {hidden}"
            target = 25.0 if T >= FAST_FROM else 0.0
            yield Row(case, "stock mLSTMLayer", slow, "mLSTMLayer", fast, minimum=target)


def time_scaling(bench: Bench) -> Iterator[Row]:
    lengths = bench.choose((2048, 4096, 8192), (512, 1024, 2048), gpu=(16384,))
    for hidden in (64, 128):
        layer = our_layer(hidden, bench.device)
        workloads = [forward_backward(layer, sequence(T, 8, hidden, bench.device)) for T in lengths]
        times = bench.medians(*workloads)
        for T, base, figure in zip(lengths[1:], times, times[1:], strict=False):
            case = f"T {T}, batch 8, hidden {hidden}"
            yield Row(case, "mLSTMLayer", figure, f"T {T // 2}", base, maximum=2.2)


def time_cell(bench: Bench) -> Iterator[Row]:
    hidden = 64
    for batch in (1, 64):
        x = torch.randn(batch, hidden, device=bench.device)
        lstm = nn.LSTMCell(hidden, hidden).to(bench.device)
        for heads, layer_norm in itertools.product((None, 1, HEADS), (False, True)):
            cell = mLSTMCell(hidden, hidden, layer_norm=layer_norm, num_heads=heads)
            cell = cell.eval().to(bench.device)
            step = repeated(partial(cell, x, *cell.init_hidden(batch)))
            names = [f"mLSTMCell, heads {heads}{', layer norm' if layer_norm else ''}"]
            workloads = [repeated(partial(lstm, x, (x, x))), step]
            if bench.kernel:  # time it without the kernel as well
                names.insert(0, f"{names[0]}, kernel")
                workloads.append(without_kernel(step))
            for graph in (False, True):
                with torch.set_grad_enabled(graph):
                    base, *figures = (total / CALLS for total in bench.medians(*workloads))
                for name, figure in zip(names, figures, strict=True):
                    what = f"{name}{', with a graph' if graph else ''}"
                    case = f"batch {batch}, hidden {hidden}"
                    yield Row(case, what, figure, "nn.LSTMCell", base, maximum=3.0)


def repeated(workload: Workload) -> Workload:
    """Return a workload of ``CALLS`` calls, since a single one is short."""

    def run() -> None:
        for _ in range(CALLS):
            workload()

    return run


def time_compiled(bench: Bench) -> Iterator[Row]:
    if bench.device.type == "cpu" and not has_cpp_compiler():
        print("compile: not measured, since there is no C++ compiler")
        return
    batch, hidden = SIZES[0]
    layer = our_layer(hidden, bench.device)
    # One graph for all lengths; a graph break is an error.
    compiled = torch.compile(layer, dynamic=True, fullgraph=True)
    for T in bench.choose((FAST_FROM, 720), (96,)):
        x = sequence(T, batch, hidden, bench.device)
        case = f"T {T}, batch {batch}, hidden {hidden}"
        eager = forward_backward(layer, x)
        first = bench.once(partial(call_new, compiled, x))
        ours, base = bench.medians(forward_backward(compiled, x), eager)
        # compiling should not make it slower; 5 % is noise
        yield Row(case, "compiled", ours, "eager", base, maximum=1.05)
        yield Row(case, "compiled, first call", first, "eager", base)


def call_new(module: Callable[..., Any], x: Tensor) -> None:
    """Run forward and backward, including the compilation that they need."""
    forward_backward(module, x)()


def has_cpp_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++"))


def time_autocast(bench: Bench) -> Iterator[Row]:
    batch, hidden = SIZES[0]
    for T in bench.choose((FAST_FROM, 2048), (FAST_FROM,)):
        B = batch_for(T, batch)
        case = f"T {T}, batch {B}, hidden {hidden}"
        layer = our_layer(hidden, bench.device)
        x = sequence(T, B, hidden, bench.device)
        expected = layer(x)[0].detach()
        for dtype in (torch.bfloat16, torch.float16):
            cast = Autocast(layer, dtype, bench.device)
            workloads = (forward_backward(module, x) for module in (cast, layer))
            ours, base = bench.medians(*workloads, rounds=7)
            what = str(dtype).removeprefix("torch.")
            yield Row(case, what, ours, "float32", base)
            error = (cast(x)[0].float() - expected).abs().max().item()
            largest = expected.abs().max().item()
            yield Row(case, f"{what}: largest error", error, "largest abs(h)", largest, unit="1")


class Autocast(nn.Module):
    """A module under autocast."""

    def __init__(self, module: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.module = module
        self.context = partial(torch.autocast, device.type, dtype)

    def forward(self, x: Tensor) -> Any:
        """Call the module."""
        with self.context():
            return self.module(x)


class Section(NamedTuple):
    """The title and the rows of one table."""

    title: str
    rows: Callable[[Bench], Iterator[Row]]


SECTIONS = {
    "layer": Section("One layer, forward and backward", time_layer),
    "chunkwise": Section("The recurrence alone, forward and backward", time_chunkwise),
    "nx-ai": Section("The recurrence beside NX-AI's, forward and backward", time_nx_ai),
    "stock": Section("Stock layer, forward and backward", time_stock),
    "memory": Section("Peak memory of forward and backward", measure_memory),
    "scaling": Section("Doubling the time, forward and backward", time_scaling),
    "lengths": Section("Time and memory per step of long sequences", measure_lengths),
    "cell": Section("One step of a cell, forward", time_cell),
    "step": Section("One training step of a model", time_training_step),
    "autocast": Section("The layer under autocast", time_autocast),
    "compile": Section("torch.compile of the layer", time_compiled),  # last, being the slowest
}


def print_table(title: str, rows: Sequence[tuple[str, ...]]) -> None:
    if not rows:
        return
    table = [COLUMNS, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    table.insert(1, tuple("-" * width for width in widths))
    print(f"\n{title}\n")
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"| {' | '.join(cells)} |")
    sys.stdout.flush()


def section_names(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in SECTIONS:
            raise argparse.ArgumentTypeError(
                f"no section {name!r}; there are {', '.join(SECTIONS)}"
            )
    return names


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, help="number of torch threads; default: torch's")
    parser.add_argument(
        "--kernel",
        action="store_true",
        help="also time layers and cells with the kernel, in C++ or on a GPU in Triton",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, few repetitions")
    parser.add_argument(
        "--only",
        type=section_names,
        default=list(SECTIONS),
        metavar="SECTION,...",
        help=f"sections to run: {', '.join(SECTIONS)}",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write all rows to this file")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU")
    return arguments


def describe(bench: Bench) -> str:
    parts = [
        f"torch {torch.__version__}",
        f"pytorch-forecasting {version('pytorch-forecasting')}",
        f"{torch.get_num_threads()} threads on {os.cpu_count()} CPUs",
    ]
    if bench.device.type == "cuda":
        parts.append(f"{torch.cuda.get_device_name(bench.device)}")
    else:
        parts.append("GPU: not measured")
    return f"{', '.join(parts)}\n{backend()}"


def main() -> None:
    """Check, measure, print, and write the CSV file if there is one."""
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    # Advice of Lightning and pytorch-forecasting on models and data of this size.
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    bench = Bench(torch.device(arguments.device), arguments.quick, arguments.kernel)
    use_kernel(arguments.kernel)
    print(describe(bench))
    require_correct(mlstm_chunkwise, bench.device)
    require_correct_naive_form(bench.device)
    require_correct_layer(bench.device)
    print("The fast form matches the slow form in values and gradients.")
    table = [("section", *COLUMNS)]
    for name in arguments.only:
        rows = [row.cells for row in SECTIONS[name].rows(bench)]
        print_table(SECTIONS[name].title, rows)
        table += [(name, *row) for row in rows]
        if arguments.csv:  # after every section, in case the run is interrupted
            with arguments.csv.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(table)


if __name__ == "__main__":
    main()
