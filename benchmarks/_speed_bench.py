"""What all sections of mlstm_speed.py share: rows, timing, layers and inputs."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pytorch_forecasting_mlstm import mLSTMLayer

HEADS = 4
SIZES = [(64, 64), (32, 128)]  # batch, hidden
FAST_FROM = 336  # number of steps from which the targets ask for a layer faster than nn.LSTM
HISTORY, HORIZON, BATCH, WIDTH = 336, 96, 64, 64  # sizes of the models

Workload = Callable[[], object]


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

    def medians(self, *workloads: Workload, rounds: int = 15, calls: int = 1) -> list[float]:
        """Return the median milliseconds per call of each workload; they run alternately."""
        for workload in workloads:
            self._seconds(workload, 1)
        if self.quick:
            rounds = min(rounds, 3)
        durations: list[list[float]] = [[] for _ in workloads]
        gc.collect()
        for _ in range(rounds):
            for seconds, workload in zip(durations, workloads, strict=True):
                seconds.append(self._seconds(workload, calls))
        return [1e3 * statistics.median(seconds) / calls for seconds in durations]

    def once(self, workload: Workload) -> float:
        """Return the milliseconds of a single call, without warm-up."""
        return 1e3 * self._seconds(workload, 1)

    def _seconds(self, workload: Workload, calls: int) -> float:
        self.wait()
        start = time.perf_counter()
        for _ in range(calls):
            workload()
        self.wait()
        return time.perf_counter() - start

    def wait(self) -> None:
        """Wait until the GPU is idle."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def forward_backward(forward: Callable[..., Any], *inputs: Tensor) -> Workload:
    """Return the workload of one forward and backward pass of a module or a function."""
    leaves = list(inputs)
    if isinstance(forward, nn.Module):
        leaves += forward.parameters()
    gradient = torch.randn_like(forward(*inputs)[0], dtype=torch.float32)

    def workload() -> object:
        output = forward(*inputs)[0]
        # the stock layer does not use all of its parameters
        return torch.autograd.grad(output, leaves, gradient.to(output.dtype), allow_unused=True)

    return workload


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
