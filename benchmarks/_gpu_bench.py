"""What the sections of gpu.py share: rows, times, launches and memory."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pytorch_forecasting_mlstm import backend

Workload = Callable[[], object]

SLOW = 100.0  # milliseconds from which a call is repeated and profiled less


class Row(NamedTuple):
    """A figure, or the reason why there is none."""

    section: str
    case: str
    what: str
    figure: float | str
    unit: str


class Bench(NamedTuple):
    """The device, how much to measure, and when to stop."""

    device: torch.device
    quick: bool
    deadline: float

    @property
    def is_late(self) -> bool:
        """Whether the time is used up."""
        return time.monotonic() > self.deadline

    def milliseconds(self, workload: Workload) -> float:
        """Return the median time of a call, by events of the device, after a warm-up."""
        workload()
        first = self._once(workload)
        repeats = 2 if self.quick or first > SLOW else 20
        return statistics.median(self._once(workload) for _ in range(repeats))

    def graph_milliseconds(self, workload: Workload) -> float | str:
        """Return the median time of a call whose launches were recorded in a CUDA graph."""
        if self.device.type != "cuda":
            return "only on a GPU"
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            workload()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            workload()
        return self.milliseconds(graph.replay)

    def _once(self, workload: Workload) -> float:
        self.wait()
        if self.device.type != "cuda":
            start = time.perf_counter()
            workload()
            return 1e3 * (time.perf_counter() - start)
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        workload()
        last.record()
        self.wait()
        return first.elapsed_time(last)

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak_megabytes(self, workload: Workload) -> float | str:
        """Return the peak of what a call allocates beyond what is there before."""
        if self.device.type != "cuda":
            return "only on a GPU"
        workload()
        self.wait()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        workload()
        self.wait()
        return (torch.cuda.max_memory_allocated() - before) / 1e6

    def launches(self, workload: Workload) -> tuple[float, float]:
        """Return how many kernels a call launches (on a CPU, operators), and their milliseconds."""
        workload()
        self.wait()
        with self.profiler() as profiler:
            workload()
            self.wait()
        return self.recorded_launches(profiler)

    def profiler(self) -> profile:
        """Return a profiler, which records what runs in its context."""
        activities = [ProfilerActivity.CPU]
        if self.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        return profile(activities=activities)

    def recorded_launches(self, profiler: profile) -> tuple[float, float]:
        """Return how many launches a profiler has recorded, and their milliseconds."""
        on_gpu = self.device.type == "cuda"
        kind = torch.autograd.DeviceType.CUDA if on_gpu else torch.autograd.DeviceType.CPU
        events = [event for event in profiler.events() if event.device_type == kind]
        field = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        return len(events), sum(getattr(event, field) for event in events) / 1e3

    def bandwidth(self) -> float:
        """Return the bytes per second that a large copy reads and writes."""
        source = torch.randn(2**20 if self.quick else 2**29, device=self.device)
        target = torch.empty_like(source)
        milliseconds = self.milliseconds(lambda: target.copy_(source))
        return 2 * source.nbytes / milliseconds * 1e3


def forward_backward(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Workload:
    """Return the workload of a forward and backward pass to all inputs that need gradients."""
    gradient = torch.randn_like(function())
    leaves = [x for x in inputs if x.requires_grad]

    def workload() -> object:
        return torch.autograd.grad(function(), leaves, gradient)

    return workload


def reason_without_kernels(device: torch.device) -> str | None:
    """Return why PyTorch computes on a device, or None where kernels can.

    A figure of PyTorch must not be reported as one of a kernel.
    """
    info = backend()
    chosen = info.cuda if device.type == "cuda" else info
    if chosen is not None and chosen.name != "pytorch":
        return None
    return f"no kernel: {'torch finds no CUDA device' if chosen is None else chosen.reason}"


def attempt(measure: Callable[[], Any]) -> Any:
    """Return a figure, or the error: one that fails must not end the run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return measure()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
