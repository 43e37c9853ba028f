"""Speed and memory of the mLSTM, beside torch.nn.LSTM and the models of pytorch-forecasting.

    python benchmarks/mlstm_speed.py                               # all sections, on the CPU
    python benchmarks/mlstm_speed.py --only layer,scaling --csv speed.csv
    python benchmarks/mlstm_speed.py --kernel                      # layers with the C++ kernel
    python benchmarks/mlstm_speed.py --device cuda                 # beside cuDNN's LSTM
    python benchmarks/mlstm_speed.py --quick                       # small sizes, under a minute

Before any timing, values and gradients of the chunkwise form are compared with the recurrent form,
and the layer with a loop over its cells. If they differ, nothing is timed and the exit status is 1.

Times are medians, in float32 without TF32. Compared modules run in turns in one process, so that
other load on the machine slows them down alike. Forward and backward compute the gradients of the
input and of all parameters from a fixed gradient of the output.

Memory is what forward and backward need beyond the module, its input and the gradient of its
output. On the CPU it is the growth of the resident set to its peak, as counted by Linux, which
includes buffers of libraries. It is measured after a warm-up in a fresh process, whose allocator
returns every large freed block: otherwise a figure would depend on what ran before. On CUDA it is
the peak of allocated tensors.

The ratio is the figure divided by the figure it is compared with.
"""

from __future__ import annotations

import argparse
import csv
import gc
import logging
import math
import multiprocessing
import os
import shutil
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from pytorch_forecasting import (
    GroupNormalizer,
    NHiTS,
    RecurrentNetwork,
    TemporalFusionTransformer,
    TimeSeriesDataSet,
)
from pytorch_forecasting.layers import mLSTMLayer as StockLayer
from pytorch_forecasting.metrics import MAE
from pytorch_forecasting.models import TiDEModel, xLSTMTime
from pytorch_forecasting.models.base import BaseModel
from torch import Tensor, nn

from pytorch_forecasting_mlstm import mLSTMCell, mLSTMLayer, mLSTMTime, use_kernel
from pytorch_forecasting_mlstm.layers.functional import mlstm_chunkwise, mlstm_recurrent, mLSTMState

HEADS = 4
SIZES = [(64, 64), (32, 128)]  # batch, hidden
FAST_FROM = 336  # number of steps from which the targets ask for a layer faster than nn.LSTM
HISTORY, HORIZON, BATCH, WIDTH = 336, 96, 64, 64  # sizes of the models

Work = Callable[[], object]
Form = Callable[..., tuple[Tensor, mLSTMState]]


class Row(NamedTuple):
    """A figure and the one it is compared with."""

    case: str
    what: str
    figure: float
    against: str
    base: float
    unit: str = "ms"
    minimum: float = 0.0  # targets of the ratio
    maximum: float = math.inf

    @property
    def ratio(self) -> float:
        """Divide the figure by its base."""
        return self.figure / self.base

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text; the unit is a column of its own."""
        targets = []
        if self.minimum > 0:
            targets.append(f"≥ {self.minimum:g}")
        if self.maximum < math.inf:
            targets.append(f"≤ {self.maximum:g}")
        met = "yes" if self.minimum <= self.ratio <= self.maximum else "NO"
        return (
            self.case,
            self.what,
            f"{self.figure:.4g}",
            self.unit,
            self.against,
            f"{self.base:.4g}",
            f"{self.ratio:.3g}",
            " ".join(targets) or "-",
            met if targets else "-",
        )


COLUMNS = ("case", "what", "figure", "unit", "against", "its figure", "ratio", "target", "met")


class Bench(NamedTuple):
    """The device, and how much to measure."""

    device: torch.device
    quick: bool
    kernel: bool = False

    def choose(self, full: Sequence[int], quick: Sequence[int], gpu: Sequence[int] = ()) -> list:
        """Return the sizes to measure: the quick ones, or all, and more on a GPU."""
        if self.quick:
            return list(quick)
        return [*full, *(gpu if self.device.type == "cuda" else ())]

    def medians(self, *works: Work, rounds: int = 15, calls: int = 1) -> list[float]:
        """Return the median milliseconds of a call of each work; the works run in turns."""
        for work in works:
            self._seconds(work, 1)
        if self.quick:
            rounds = min(rounds, 3)
        durations: list[list[float]] = [[] for _ in works]
        gc.collect()
        for _ in range(rounds):
            for seconds, work in zip(durations, works, strict=True):
                seconds.append(self._seconds(work, calls))
        return [1e3 * statistics.median(seconds) / calls for seconds in durations]

    def once(self, work: Work) -> float:
        """Return the milliseconds of a single call, without warm-up."""
        return 1e3 * self._seconds(work, 1)

    def _seconds(self, work: Work, calls: int) -> float:
        self.wait()
        start = time.perf_counter()
        for _ in range(calls):
            work()
        self.wait()
        return time.perf_counter() - start

    def wait(self) -> None:
        """Wait until the GPU is idle."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Shape(NamedTuple):
    """Sizes of a problem, and the offset of its input gates."""

    B: int
    NH: int
    T: int
    K: int
    V: int
    offset: float = 0.0


AWKWARD = [
    Shape(1, 1, 1, 1, 1),
    Shape(3, 2, 33, 3, 5),
    Shape(2, 3, 63, 4, 1, offset=-20.0),
    Shape(2, 1, 130, 16, 16, offset=3.0),
    Shape(1100, 2, 32, 2, 1),  # several batch tiles
    Shape(1, 2, 1100, 4, 4),  # long chunks
]
# Largest error as a fraction of 1 + the largest magnitude. A gate's gradient sums over all later
# steps, hence a few thousand roundings.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-4}
NAMES = ("h", "c", "n", "m", *(f"gradient of {x}" for x in "q k v log_i log_f c n m".split()))


def require_correct(fast: Form, device: torch.device, shapes: Sequence[Shape] = AWKWARD) -> None:
    """Exit unless values and gradients of a form match those of the recurrent form."""
    for dtype, tolerance in TOLERANCE.items():
        for shape in shapes:
            inputs = draw_problem(shape, dtype, device)
            results = (with_gradients(form, inputs) for form in (fast, mlstm_recurrent))
            for name, actual, expected in zip(NAMES, *results, strict=True):
                scale = 1 + expected.abs().max()
                error = ((actual - expected).abs().max() / scale).item()
                if not error <= tolerance:  # also true of NaN
                    raise SystemExit(
                        f"The fast form is wrong, nothing is timed: {name} of {shape} in {dtype} "
                        f"has a relative error of {error:.1e}, expected at most {tolerance:.0e}."
                    )


def require_correct_layer(device: torch.device) -> None:
    """Exit unless the layer and its gradients match a loop over its cell."""
    for dtype, tolerance in TOLERANCE.items():
        for T, hidden, layer_norm in ((70, 32, False), (130, 64, True), (33, 12, True)):
            torch.manual_seed(T)
            layer = our_layer(hidden, device, layer_norm).to(dtype)
            x = sequence(T, 3, hidden, device).to(dtype).detach().requires_grad_()
            state = tuple(part[0] for part in layer.init_hidden(3))
            steps = []
            for step in x:
                state = layer.cells[0](step, *state)
                steps.append(state[0])
            slow, fast = torch.stack(steps), layer(x)[0]
            inputs = [x, *layer.parameters()]
            results = (
                [h, *torch.autograd.grad(h, inputs, torch.ones_like(h))] for h in (fast, slow)
            )
            for actual, expected in zip(*results, strict=True):
                error = ((actual - expected).abs().max() / (1 + expected.abs().max())).item()
                if not error <= tolerance:
                    raise SystemExit(
                        f"The layer is wrong, nothing is timed: {T} steps of {hidden} units in "
                        f"{dtype} have a relative error of {error:.1e}, expected at most "
                        f"{tolerance:.0e}."
                    )


def draw_problem(shape: Shape, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Draw q, k, v, the logarithms of both gates, and a state."""
    B, NH, T, K, V, offset = shape
    generator = torch.Generator().manual_seed(T)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    inputs = [
        draw(B, NH, T, K),
        draw(B, NH, T, K) / math.sqrt(K),
        draw(B, NH, T, V),
        draw(B, NH, T) + offset,
        F.logsigmoid(2 * draw(B, NH, T) + 3),
        draw(B, NH, V, K),
        draw(B, NH, K),
        draw(B, NH),
    ]
    return [x.to(device, dtype).requires_grad_() for x in inputs]


def with_gradients(form: Form, inputs: list[Tensor]) -> list[Tensor]:
    """Return h, the last state, and the gradients of all inputs."""
    h, state = form(*inputs[:5], mLSTMState(*inputs[5:]))
    outputs = [h, *state]
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(x.shape, generator=generator).to(x) for x in outputs]
    return [x.detach() for x in (*outputs, *torch.autograd.grad(outputs, inputs, weights))]


def plain_chunkwise(
    q: Tensor, k: Tensor, v: Tensor, log_i: Tensor, log_f: Tensor
) -> tuple[Tensor, mLSTMState]:
    """Compute the chunkwise form from an empty memory in a straightforward way.

    q, k (B, NH, T, K), v (B, NH, T, V), gates (B, NH, T); N chunks of L steps. This is a typical
    first implementation: no loop, and autograd derives the backward pass.
    """
    T, V = v.shape[2:]
    L = min(T, 32 if T <= 1024 else 64)
    N = -(-T // L)
    pad = N * L - T
    q, k, v = (F.pad(x, (0, 0, 0, pad)).unflatten(2, (N, L)) for x in (q, k, v))
    log_i = F.pad(log_i, (0, pad), value=-torch.inf).unflatten(2, (N, L))
    log_f = F.pad(log_f, (0, pad)).unflatten(2, (N, L))
    v = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)  # the last column gives the normalizer

    # b_j: log decay of the memory that enters the chunk, at step j; D_jl: that of step l at step j
    b = log_f.cumsum(-1)
    future = torch.ones(L, L, dtype=torch.bool, device=q.device).triu(1)
    D = b[..., :, None] - b[..., None, :] + log_i[..., None, :]
    D = D.masked_fill(future, -torch.inf)

    # what every chunk adds to the memory
    mu = D[..., -1, :].amax(-1)
    updates = (v * (D[..., -1, :] - mu[..., None]).exp()[..., None]).mT @ k  # (B, NH, N, V+1, K)

    # the memory after each chunk, and the memory that enters it
    g = log_f.sum(-1).cumsum(-1)
    later = torch.ones(N, N, dtype=torch.bool, device=q.device).triu(1)
    carry = (g[..., :, None] - g[..., None, :] + mu[..., None, :]).masked_fill(later, -torch.inf)
    m = carry.amax(-1)
    memory = ((carry - m[..., None]).exp() @ updates.flatten(-2)).unflatten(-1, updates.shape[-2:])
    memory_in = F.pad(memory[:, :, :-1], (0, 0, 0, 0, 1, 0))
    m_in = F.pad(m[..., :-1], (1, 0), value=-1e30)

    log_decay_in = b + m_in[..., None]
    m_read = torch.maximum(D.amax(-1), log_decay_in).clamp_min(0)
    intra_chunk = ((q @ k.mT) * (D - m_read[..., None]).exp()) @ v
    inter_chunk = (q * (log_decay_in - m_read).exp()[..., None]) @ memory_in.mT
    read = intra_chunk + inter_chunk
    h = read[..., :V] / torch.maximum(read[..., V].abs(), (-m_read).exp())[..., None]
    h = h.flatten(2, 3)[:, :, :T]
    return h, mLSTMState(memory[:, :, -1, :V], memory[:, :, -1, V], m[..., -1])


def require_correct_plain_form(device: torch.device) -> None:
    """Exit unless the plain form is correct, too: else the comparison would mean nothing."""
    q, k, v, log_i, log_f, *_ = draw_problem(Shape(2, 2, 75, 3, 5), torch.float64, device)
    actual, expected = (
        form(q, k, v, log_i, log_f)[0] for form in (plain_chunkwise, mlstm_recurrent)
    )
    if not torch.allclose(actual, expected, atol=1e-11):
        raise SystemExit("The plain chunkwise form is wrong, nothing is timed.")


def forward_backward(forward: Callable[..., Any], *inputs: Tensor) -> Work:
    """Return the work of one forward and backward pass of a module or a function."""
    leaves = list(inputs)
    if isinstance(forward, nn.Module):
        leaves += forward.parameters()
    gradient = torch.randn_like(forward(*inputs)[0], dtype=torch.float32)

    def work() -> object:
        output = forward(*inputs)[0]
        # the stock layer does not use all of its parameters
        return torch.autograd.grad(output, leaves, gradient.to(output.dtype), allow_unused=True)

    return work


def our_layer(hidden: int, device: torch.device, layer_norm: bool = False) -> nn.Module:
    layer = mLSTMLayer(
        hidden, hidden, dropout=0.0, layer_norm=layer_norm, num_heads=HEADS, residual_conn=False
    )
    return layer.to(device)


def sequence(T: int, B: int, hidden: int, device: torch.device) -> Tensor:
    """Return an input that requires a gradient, as inside a model."""
    return torch.randn(T, B, hidden, device=device, requires_grad=True)


def batch_for(T: int, batch: int) -> int:
    """Return a batch size that fits into memory for T steps."""
    return batch if T < 2048 else 8 if T < 8192 else 2


def shapes(bench: Bench) -> Iterator[tuple[str, int, int, int]]:
    """Yield case, T, B and H of all sizes."""
    lengths = bench.choose((96, 336, 512, 720, 2048, 8192), (96, 336), gpu=(16384,))
    for batch, hidden in SIZES:
        for T in lengths:
            B = batch_for(T, batch)
            yield f"T {T}, batch {B}, hidden {hidden}", T, B, hidden


def time_layer(bench: Bench) -> Iterator[Row]:
    for case, T, B, hidden in shapes(bench):
        x = sequence(T, B, hidden, bench.device)
        modules = (
            nn.LSTM(hidden, hidden).to(bench.device),
            our_layer(hidden, bench.device),
            our_layer(hidden, bench.device, layer_norm=True),
        )
        works = [forward_backward(module, x) for module in modules]
        if bench.kernel:  # time them without the kernel as well
            works += [without_kernel(work) for work in works[1:]]
        lstm, *ours = bench.medians(*works)
        plain_target, norm_target = (0.75, 1.0) if T >= FAST_FROM else (1.2, math.inf)
        targets = (plain_target, norm_target, math.inf, math.inf)
        names = ["mLSTMLayer", "mLSTMLayer, layer norm"]
        if bench.kernel:
            names = [f"{name}, kernel" for name in names] + names
        for name, figure, target in zip(names, ours, targets, strict=False):
            yield Row(case, name, figure, "nn.LSTM", lstm, maximum=target)


def without_kernel(work: Work) -> Work:
    def run() -> None:
        use_kernel(False)
        try:
            work()
        finally:
            use_kernel()

    return run


def time_chunkwise(bench: Bench) -> Iterator[Row]:
    for case, T, B, hidden in shapes(bench):
        shape = Shape(B, HEADS, T, hidden // HEADS, hidden // HEADS)
        inputs = draw_problem(shape, torch.float32, bench.device)[:5]
        ours, plain = bench.medians(
            *(forward_backward(form, *inputs) for form in (mlstm_chunkwise, plain_chunkwise))
        )
        yield Row(case, "mlstm_chunkwise", ours, "plain autograd", plain, maximum=0.6)


def time_stock(bench: Bench) -> Iterator[Row]:
    for T in bench.choose((FAST_FROM, 720), (96,)):
        for batch, hidden in SIZES:
            x = sequence(T, batch, hidden, bench.device)
            stock = StockLayer(hidden, hidden, 1, dropout=0.0, layer_norm=False).to(bench.device)
            layers = (stock, our_layer(hidden, bench.device))
            works = (forward_backward(layer, x) for layer in layers)
            slow, fast = bench.medians(*works, rounds=5)
            case = f"T {T}, batch {batch}, hidden {hidden}"
            target = 25.0 if T >= FAST_FROM else 0.0
            yield Row(case, "stock mLSTMLayer", slow, "mLSTMLayer", fast, minimum=target)


def measure_memory(bench: Bench) -> Iterator[Row]:
    cases = [(T, batch_for(T, 64), 64) for T in bench.choose((FAST_FROM, 720), ())]
    doubled = [(T, 8, 64) for T in bench.choose((2048, 4096, 8192), (1024, 2048))]
    measured = measured_peaks(bench, [*cases, *doubled])
    if measured is None:
        print("memory: not measured, since this system has no writable /proc/self/clear_refs")
        return
    peaks = {}
    for (T, B, hidden), (lstm, ours) in measured:
        case = f"T {T}, batch {B}, hidden {hidden}"
        yield Row(case, "mLSTMLayer", ours, "nn.LSTM", lstm, unit="MB", maximum=1.5)
        peaks[T, B] = ours
    for T, B, _ in doubled[1:]:
        base = peaks[T // 2, B]
        case = f"T {T}, batch {B}, hidden 64"
        yield Row(case, "mLSTMLayer", peaks[T, B], f"T {T // 2}", base, unit="MB", maximum=2.1)


Sizes = tuple[int, int, int]  # T, B, H


def measured_peaks(
    bench: Bench, cases: list[Sizes]
) -> list[tuple[Sizes, tuple[float, float]]] | None:
    """Return the peaks of nn.LSTM and of the layer in MB for every case, None if unmeasurable."""
    if bench.device.type == "cuda":
        return [(case, peaks_of_both(case, cuda_peak, bench.device)) for case in cases]
    if not os.access("/proc/self/clear_refs", os.W_OK):
        return None
    with fresh_process(bench, returns_memory=True) as process:
        peaks = process.map(partial(peaks_of_both, peak=resident_peak), cases)
        return list(zip(cases, peaks, strict=True))


@contextmanager
def fresh_process(bench: Bench, *, returns_memory: bool) -> Iterator[ProcessPoolExecutor]:
    """Start a process; with ``returns_memory``, its allocator returns every large freed block."""
    if returns_memory:
        os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # read by glibc when the process starts
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            process.submit(torch.set_num_threads, torch.get_num_threads()).result()
            process.submit(use_kernel, bench.kernel).result()
            yield process
    finally:
        os.environ.pop("MALLOC_MMAP_THRESHOLD_", None)


def peaks_of_both(
    case: Sizes,
    peak: Callable[[Work], float],
    device: torch.device = torch.device("cpu"),  # noqa: B008 - a constant
) -> tuple[float, float]:
    T, B, hidden = case
    lstm, ours = (
        peak(forward_backward(module, sequence(T, B, hidden, device)))
        for module in (nn.LSTM(hidden, hidden).to(device), our_layer(hidden, device))
    )
    return lstm, ours


def resident_peak(work: Work) -> float:
    """Return the peak growth of this process's resident set in MB, after a warm-up."""
    work()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def resident(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024 / 1e6
    raise ValueError(f"/proc/self/status has no {field}")


def cuda_peak(work: Work) -> float:
    """Return the peak of additionally allocated tensors in MB, after a warm-up."""
    work()
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def time_scaling(bench: Bench) -> Iterator[Row]:
    lengths = bench.choose((2048, 4096, 8192), (512, 1024, 2048), gpu=(16384,))
    for hidden in (64, 128):
        layer = our_layer(hidden, bench.device)
        works = [forward_backward(layer, sequence(T, 8, hidden, bench.device)) for T in lengths]
        times = bench.medians(*works)
        for T, base, figure in zip(lengths[1:], times, times[1:], strict=False):
            case = f"T {T}, batch 8, hidden {hidden}"
            yield Row(case, "mLSTMLayer", figure, f"T {T // 2}", base, maximum=2.2)


def measure_lengths(bench: Bench) -> Iterator[Row]:
    """Measure time and memory per step, every figure in a fresh process."""
    if bench.device.type == "cuda" or not os.access("/proc/self/clear_refs", os.W_OK):
        print("lengths: not measured, needs the CPU and a writable /proc/self/clear_refs")
        return
    lengths = bench.choose((10**4, 10**5, 10**6), (10**3, 10**4))
    for name, unit, measure, returns_memory in (
        ("time per step", "us", microseconds_per_step, False),
        ("peak memory per step", "bytes", bytes_per_step, True),
    ):
        for passes, backward in (("forward", False), ("with gradients", True)):
            figures = []
            for T in lengths:
                with fresh_process(bench, returns_memory=returns_memory) as process:
                    figures.append(process.submit(measure, T, backward).result())
            for T, figure in zip(lengths, figures, strict=True):
                case = f"T {T}, batch 1, hidden 64, {passes}"
                against = f"T {lengths[0]}"
                yield Row(case, name, figure, against, figures[0], unit=unit, maximum=2.0)


def single_sequence_work(T: int, backward: bool) -> Work:
    """Return the work of one pass of a layer over a single sequence."""
    cpu = torch.device("cpu")
    layer, x = our_layer(64, cpu), sequence(T, 1, 64, cpu)
    if backward:
        return forward_backward(layer, x)
    return torch.no_grad()(partial(layer, x))


def microseconds_per_step(T: int, backward: bool) -> float:
    """Return the median over several passes, fewer for long sequences."""
    bench = Bench(torch.device("cpu"), quick=False)
    rounds = max(3, 150_000 // T)
    (milliseconds,) = bench.medians(single_sequence_work(T, backward), rounds=rounds)
    return 1e3 * milliseconds / T


def bytes_per_step(T: int, backward: bool) -> float:
    """Return the peak growth beyond the layer, its input and the gradient of its output."""
    return 1e6 * resident_peak(single_sequence_work(T, backward)) / T


def time_cell(bench: Bench) -> Iterator[Row]:
    hidden = 64
    for batch in (1, 64):
        for heads in (None, HEADS):
            for layer_norm in (False, True):
                cell = mLSTMCell(hidden, hidden, layer_norm=layer_norm, num_heads=heads)
                cell = cell.eval().to(bench.device)
                lstm = nn.LSTMCell(hidden, hidden).to(bench.device)
                x = torch.randn(batch, hidden, device=bench.device)
                state = cell.init_hidden(batch)
                with torch.no_grad():
                    figure, base = bench.medians(
                        partial(cell, x, *state), partial(lstm, x, (x, x)), calls=100
                    )
                norm = ", layer norm" if layer_norm else ""
                case = f"batch {batch}, hidden {hidden}"
                what = f"mLSTMCell, heads {heads}{norm}"
                yield Row(case, what, figure, "nn.LSTMCell", base, maximum=4.0)


def time_training_step(bench: Bench) -> Iterator[Row]:
    dataset = sines()
    x, y = next(iter(dataset.to_dataloader(train=True, batch_size=BATCH)))
    x, y = on_device((x, y), bench.device)
    common: dict[str, Any] = dict(loss=MAE(), learning_rate=1e-3)
    wide = common | dict(hidden_size=WIDTH)
    xlstm = wide | dict(input_size=2, output_size=HORIZON, xlstm_type="mlstm")
    # name, class, arguments, and whether it is recurrent or has attention
    competitors: list[tuple[str, type[BaseModel], dict[str, Any], bool]] = [
        ("RecurrentNetwork (LSTM), 1 layer", RecurrentNetwork, wide | dict(rnn_layers=1), True),
        ("RecurrentNetwork (LSTM), default", RecurrentNetwork, wide, True),
        ("TemporalFusionTransformer", TemporalFusionTransformer, wide, True),
        ("xLSTMTime, mlstm", xLSTMTime, xlstm, True),
        ("NHiTS", NHiTS, wide, False),
        ("TiDEModel", TiDEModel, wide, False),
        ("mLSTMTime, patch_length 1", mLSTMTime, common | dict(patch_length=1), False),
    ]
    ours = mLSTMTime.from_dataset(dataset, **common)
    models = [ours, *(model.from_dataset(dataset, **kwargs) for _, model, kwargs, _ in competitors)]
    steps = [training_step(model.to(bench.device), x, y) for model in models]
    our_time, *times = bench.medians(*steps, rounds=7)
    against = f"mLSTMTime, {parameters(ours)}"
    case = f"{HISTORY} + {HORIZON} steps, batch {BATCH}"
    for (name, _, _, serial), model, figure in zip(competitors, models[1:], times, strict=True):
        what = f"{name}, {parameters(model)}"
        yield Row(case, what, figure, against, our_time, minimum=1.0 if serial else 0.0)


def parameters(model: nn.Module) -> str:
    return f"{sum(p.numel() for p in model.parameters()):,} parameters"


def training_step(model: BaseModel, x: dict[str, Tensor], y: tuple[Tensor, Any]) -> Work:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()

    def work() -> None:
        optimizer.zero_grad()
        model.loss(model(x)["prediction"], y).backward()
        optimizer.step()

    return work


def sines() -> TimeSeriesDataSet:
    """Make a dataset of noisy daily seasons, with one known covariate."""
    generator = np.random.default_rng(0)
    t = np.arange(HISTORY + HORIZON + BATCH)
    day = np.sin(2 * np.pi * t / 24)
    series = [
        pd.DataFrame(
            {
                "t": t,
                "series": str(number),
                "day": day,
                "y": 10 + number + 3 * day + generator.normal(scale=0.1, size=len(t)),
            }
        )
        for number in range(4)
    ]
    return TimeSeriesDataSet(
        pd.concat(series, ignore_index=True),
        time_idx="t",
        target="y",
        group_ids=["series"],
        max_encoder_length=HISTORY,
        max_prediction_length=HORIZON,
        time_varying_known_reals=["day"],
        time_varying_unknown_reals=["y"],
        target_normalizer=GroupNormalizer(groups=["series"]),
    )


def on_device(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {name: on_device(part, device) for name, part in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(on_device(part, device) for part in batch)
    return batch


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
            works = (forward_backward(module, x) for module in (cast, layer))
            ours, base = bench.medians(*works, rounds=7)
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
    "stock": Section("Stock layer, forward and backward", time_stock),
    "memory": Section("Peak memory of forward and backward", measure_memory),
    "scaling": Section("Doubling the time, forward and backward", time_scaling),
    "lengths": Section("Time and memory per step of long sequences", measure_lengths),
    "cell": Section("One step of a cell, no gradient", time_cell),
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
        "--kernel", action="store_true", help="also time layers with the C++ kernel"
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
    if arguments.device == "cuda" and arguments.kernel:
        parser.error("--kernel: the kernel runs on the CPU only")
    return arguments


def describe(bench: Bench) -> str:
    parts = [
        f"torch {torch.__version__}",
        f"pytorch-forecasting {version('pytorch-forecasting')}",
        f"{torch.get_num_threads()} threads on {os.cpu_count()} CPUs",
    ]
    if bench.kernel:
        parts.append("layers with the C++ kernel")
    if bench.device.type == "cuda":
        parts.append(f"{torch.cuda.get_device_name(bench.device)}")
    else:
        parts.append("GPU: not measured")
    return ", ".join(parts)


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
    require_correct_plain_form(bench.device)
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
