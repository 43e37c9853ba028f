"""Memory of layers, and time and memory per step of long sequences, for mlstm_speed.py."""

import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from _speed_bench import (
    FAST_FROM,
    Bench,
    Row,
    Workload,
    batch_for,
    forward_backward,
    our_layer,
    sequence,
)
from torch import nn

from pytorch_forecasting_mlstm import use_kernel


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
        yield Row(
            case,
            "mLSTMLayer",
            ours,
            "nn.LSTM",
            lstm,
            unit="MB",
            maximum=0.4 if bench.kernel else 1.5,
        )
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
    peak: Callable[[Workload], float],
    device: torch.device = torch.device("cpu"),  # noqa: B008 - a constant
) -> tuple[float, float]:
    T, B, hidden = case
    lstm, ours = (
        peak(forward_backward(module, sequence(T, B, hidden, device)))
        for module in (nn.LSTM(hidden, hidden).to(device), our_layer(hidden, device))
    )
    return lstm, ours


def resident_peak(workload: Workload) -> float:
    """Return the peak growth of this process's resident set in MB, after a warm-up."""
    workload()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = resident("VmRSS")
    workload()
    return resident("VmHWM") - before


def resident(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024 / 1e6
    raise ValueError(f"/proc/self/status has no {field}")


def cuda_peak(workload: Workload) -> float:
    """Return the peak of additionally allocated tensors in MB, after a warm-up."""
    workload()
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    workload()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


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


def single_sequence_workload(T: int, backward: bool) -> Workload:
    """Return the workload of one pass of a layer over a single sequence."""
    cpu = torch.device("cpu")
    layer, x = our_layer(64, cpu), sequence(T, 1, 64, cpu)
    if backward:
        return forward_backward(layer, x)
    return torch.no_grad()(partial(layer, x))


def microseconds_per_step(T: int, backward: bool) -> float:
    """Return the median over several passes, fewer for long sequences."""
    bench = Bench(torch.device("cpu"), quick=False)
    rounds = max(3, 150_000 // T)
    (milliseconds,) = bench.medians(single_sequence_workload(T, backward), rounds=rounds)
    return 1e3 * milliseconds / T


def bytes_per_step(T: int, backward: bool) -> float:
    """Return the peak growth beyond the layer, its input and the gradient of its output."""
    return 1e6 * resident_peak(single_sequence_workload(T, backward)) / T
