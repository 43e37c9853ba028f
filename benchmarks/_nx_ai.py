"""The chunkwise forms of NX-AI's package mlstm_kernels, where it is installed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from _speed_bench import HEADS, Bench, Row, forward_backward, shapes
from torch import Tensor

from pytorch_forecasting_mlstm.layers.functional import mlstm_chunkwise

#: Maps q, k (B, NH, T, K), v (B, NH, T, V) and pre-activations of both gates (B, NH, T) to h.
Form = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

NATIVE = ("native_autograd", "native_custbw")  # in PyTorch
TRITON = ("triton_xl_chunk", "triton_limit_chunk")
_LARGEST_CHUNK = 64
_TOLERANCE = 1e-3  # of h, of a size near 1: their denominator has an eps of 1e-6


def ours(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, chunk_size: int | None = None
) -> Tensor:
    """Compute the same with `mlstm_chunkwise`."""
    k = k / k.shape[-1] ** 0.5
    return mlstm_chunkwise(q, k, v, i, F.logsigmoid(f), chunk_size=chunk_size)[0]


def nx_ai_forms(names: Sequence[str], **options: Any) -> dict[str, Form]:
    """Return those of the forms that are installed."""
    try:
        from mlstm_kernels.torch.chunkwise import registry
    except ImportError:
        return {}
    return {f"NX-AI {name}": _form(registry[name], **options) for name in names if name in registry}


def _form(kernel: Any, **options: Any) -> Form:
    def run(*inputs: Tensor) -> Tensor:
        result = kernel(*inputs, **options)
        h: Tensor = result[0] if isinstance(result, tuple) else result
        return h

    return run


def time_nx_ai(bench: Bench) -> Iterator[Row]:
    """Time `mlstm_chunkwise` beside the forms in PyTorch, forward and backward."""
    for case, T, B, hidden in shapes(bench):
        inputs = _draw(B, T, hidden, bench.device)
        chunk_size = math.gcd(T, _LARGEST_CHUNK)  # they take whole chunks only
        forms = nx_ai_forms(NATIVE, chunk_size=chunk_size)
        if not forms:
            return
        expected = ours(*inputs)
        for name, form in forms.items():
            error = float((form(*inputs) - expected).abs().max())
            if not error <= _TOLERANCE * (1 + float(expected.abs().max())):
                raise SystemExit(f"{name} differs by {error:.1e} in {case}: nothing is timed.")
        workloads = [
            forward_backward(partial(_as_tuple, form), *inputs) for form in (ours, *forms.values())
        ]
        figure, *theirs = bench.medians(*workloads, rounds=5)
        for name, base in zip(forms, theirs, strict=True):
            yield Row(case, "mlstm_chunkwise", figure, name, base, maximum=0.2)


def _draw(B: int, T: int, hidden: int, device: torch.device) -> list[Tensor]:
    generator = torch.Generator().manual_seed(T)
    draw = partial(torch.randn, generator=generator)
    parts = [draw(B, HEADS, T, hidden // HEADS) for _ in range(3)]
    gates = [draw(B, HEADS, T), draw(B, HEADS, T) + 4]
    return [x.to(device).requires_grad_() for x in (*parts, *gates)]


def _as_tuple(form: Form, *inputs: Tensor) -> tuple[Tensor]:
    return (form(*inputs),)
