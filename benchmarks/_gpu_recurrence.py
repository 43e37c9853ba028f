"""Recurrences and layers beside those of other packages, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from _gpu_bench import SLOW, Bench, Row, attempt, forward_backward, reason_without_kernels
from _nx_ai import TRITON, nx_ai_forms, ours
from torch import Tensor, nn

from pytorch_forecasting_mlstm import mLSTMLayer, use_kernel

Form = Callable[..., Tensor]


class Setting(NamedTuple):
    """Whether kernels are on, and products may be rounded to TF32."""

    kernel: bool = True
    tf32: bool = False

    def apply(self, device: torch.device) -> str | None:
        """Set both for what follows; return why there are no kernels if they should be on."""
        use_kernel_if_possible() if self.kernel else use_kernel(False)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32
        return reason_without_kernels(device) if self.kernel else None


class Shape(NamedTuple):
    """Batch, heads, steps and head size."""

    B: int
    NH: int
    T: int
    d: int

    def __str__(self) -> str:
        return f"B {self.B}, {self.NH} heads of {self.d}, T {self.T}"

    def floor_bytes(self, size: int) -> int:
        """Return the bytes of reading and writing everything once, forward and backward.

        Forward reads q, k, v and two gates, and writes h. Backward reads these and the gradient of
        h, and writes five gradients. An element of q, k, v and h has ``size`` bytes.
        """
        steps = self.B * self.NH * self.T
        return steps * (size * (4 + 4 + 3) * self.d + 4 * (2 + 2 + 2))


SHAPES = (
    *(Shape(64, 4, 96, 16), Shape(64, 4, 512, 16), Shape(64, 4, 2048, 32)),
    *(Shape(8, 4, 8192, 64), Shape(16, 4, 4096, 128)),
)
QUICK_SHAPES = (Shape(2, 2, 40, 8),)


def measure_recurrence(bench: Bench) -> Iterator[Row]:
    """Time our forms, NX-AI's kernels, fla's simple GLA and attention."""
    bandwidth = bench.bandwidth()
    yield Row("recurrence", "copy", "bandwidth", bandwidth / 1e9, "GB/s")
    for shape in QUICK_SHAPES if bench.quick else reversed(SHAPES):
        if bench.is_late:
            yield Row("recurrence", str(shape), "skipped", "out of time", "")
            continue
        for dtype in (torch.float32, torch.bfloat16):
            name = str(dtype).removeprefix("torch.")
            case = f"{shape}, {name}"
            floor = shape.floor_bytes(dtype.itemsize) / bandwidth * 1e3
            yield Row("recurrence", case, "floor by bandwidth", floor, "ms")
            inputs = draw(shape, dtype, bench.device)
            for what, (setting, form) in forms(dtype).items():
                if bench.is_late:
                    break
                reason = setting.apply(bench.device)
                if reason is not None and what.startswith("kernel"):
                    yield Row("recurrence", case, what, reason, "")
                    continue
                measure = partial(time_form, bench, partial(form, *inputs), inputs)
                yield Row("recurrence", case, what, attempt(measure), "ms")
    Setting().apply(bench.device)


def time_form(bench: Bench, call: Callable[[], Tensor], inputs: tuple[Tensor, ...]) -> float:
    used = [x for x in inputs if x.requires_grad]
    output = call()
    gradients = torch.autograd.grad(output, used, torch.ones_like(output), allow_unused=True)
    leaves = [x for x, grad in zip(used, gradients, strict=True) if grad is not None]
    return bench.milliseconds(forward_backward(call, leaves))


def draw(shape: Shape, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """Draw q, k, v, the pre-activation of the input gate, and that of the forget gate."""
    torch.manual_seed(0)
    B, NH, T, d = shape
    parts = [torch.randn(B, NH, T, d, device=device).to(dtype) for _ in range(3)]
    gates = [torch.randn(B, NH, T, device=device), torch.randn(B, NH, T, device=device) + 4]
    return tuple(x.requires_grad_() for x in (*parts, *gates))


def forms(dtype: torch.dtype) -> dict[str, tuple[Setting, Form]]:
    """Return all forms that can run here, by name."""
    on = Setting()
    found: dict[str, tuple[Setting, Form]] = {
        "kernel": (on, ours),
        "PyTorch": (Setting(kernel=False), ours),
    }
    if dtype == torch.float32:
        found["kernel, TF32"] = (Setting(tf32=True), ours)
    others = {
        "attention (SDPA)": attention,
        **nx_ai_forms(TRITON, autocast_kernel_dtype=dtype),
        **fla_forms(),
    }
    return found | {name: (on, form) for name, form in others.items()}


def use_kernel_if_possible() -> None:
    """Turn kernels on; without a compiler for the CPU's, leave the default."""
    attempt(use_kernel)


def attention(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def fla_forms() -> dict[str, Form]:
    """Return the simple gated linear attention of fla, if it is installed: no input gate."""
    try:
        from fla.ops.simple_gla import chunk_simple_gla
    except ImportError:
        return {}

    def run(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return chunk_simple_gla(q, k, v, F.logsigmoid(f).transpose(1, 2))[0]

    return {"fla simple GLA": run}


def measure_layer(bench: Bench) -> Iterator[Row]:
    """Time the layer beside cuDNN's LSTM; count launches and memory."""
    for shape in QUICK_SHAPES if bench.quick else SHAPES:
        if bench.is_late:
            yield Row("layer", str(shape), "skipped", "out of time", "")
            continue
        H = shape.NH * shape.d
        x = torch.randn(shape.T, shape.B, H, device=bench.device, requires_grad=True)
        options: dict[str, Any] = {"dropout": 0.0, "num_heads": shape.NH, "residual_conn": False}
        modules = {
            "nn.LSTM": nn.LSTM(H, H),
            "layer": mLSTMLayer(H, H, layer_norm=False, **options),
            "layer with norm": mLSTMLayer(H, H, **options),
        }
        for name, module in modules.items():
            for what, (setting, call) in layer_calls(name, module.to(bench.device), x).items():
                if bench.is_late:
                    break
                reason = setting.apply(bench.device)
                if reason is not None and not what.startswith("nn.LSTM"):
                    yield Row("layer", str(shape), what, reason, "")
                    continue
                leaves = [x, *module.parameters()]
                yield from measure_workload(bench, str(shape), what, call, leaves)
    Setting().apply(bench.device)


def measure_workload(
    bench: Bench, case: str, what: str, call: Callable[[], Tensor], leaves: list[Tensor]
) -> Iterator[Row]:
    """Measure time, memory and launches of a forward and backward pass."""
    workload = attempt(partial(forward_backward, call, leaves))
    if isinstance(workload, str):
        yield Row("layer", case, what, workload, "")
        return
    milliseconds = attempt(partial(bench.milliseconds, workload))
    yield Row("layer", case, what, milliseconds, "ms")
    peak = attempt(partial(bench.peak_megabytes, workload))
    yield Row("layer", case, f"{what}, peak memory", peak, "MB")
    if isinstance(milliseconds, str) or milliseconds > SLOW:
        return
    counted = attempt(partial(bench.launches, workload))
    if not isinstance(counted, str):
        yield Row("layer", case, f"{what}, launches", counted[0], "")
        yield Row("layer", case, f"{what}, device busy", counted[1], "ms")
    if not what.startswith("nn.LSTM"):
        replayed = attempt(partial(bench.graph_milliseconds, workload))
        yield Row("layer", case, f"{what}, as a CUDA graph", replayed, "ms")


def layer_calls(
    name: str, module: nn.Module, x: Tensor
) -> dict[str, tuple[Setting, Callable[[], Tensor]]]:
    """Return calls in float32, with TF32 and in bfloat16, for ours with and without kernels."""

    def call(mixed: bool) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=mixed):
            return module(x)[0]

    plain, mixed = partial(call, False), partial(call, True)
    calls = {
        f"{name}, float32": (Setting(), plain),
        f"{name}, TF32": (Setting(tf32=True), plain),
        f"{name}, bfloat16": (Setting(), mixed),
    }
    if name != "nn.LSTM":
        calls[f"{name}, float32, PyTorch"] = (Setting(kernel=False), plain)
    return calls
