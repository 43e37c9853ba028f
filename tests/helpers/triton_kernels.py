"""The Triton kernels as a form: on a CUDA device, or else under Triton's interpreter.

The interpreter runs every program of a launch in Python, about ten milliseconds each.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.tolerances import assert_close
from pytorch_forecasting_mlstm.layers._recurrent._mlstm import run_cell
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import (
    mlstm_chunkwise,
    mLSTMState,
)
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops import autograd
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.triton import backend, options
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.triton.device import _MIN_TRITON

try:
    _VERSION = importlib.metadata.version("triton")
except importlib.metadata.PackageNotFoundError:
    _VERSION = "0.0"
needs_triton = pytest.mark.skipif(
    tuple(map(int, _VERSION.split(".")[:2])) < _MIN_TRITON,
    reason="Triton 3.5 or later is not installed: pip install triton",
)

#: Where the kernels run.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

#: Marks of tests that take seconds under the interpreter only.
SLOW_WITHOUT_A_GPU = () if DEVICE.type == "cuda" else (pytest.mark.slow,)

#: What they are tested in: products of float64 take the compiler minutes.
WIDE = torch.float32 if DEVICE.type == "cuda" else torch.float64


class TritonPlan(Enum):
    """What one program computes: a sequence, if there are at least this many, or else a chunk."""

    sequences = 1
    chunks = 1 << 30

    def apply(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Choose this plan for heads of any size, in forward and backward passes."""
        monkeypatch.setattr(options, "_MIN_SEQUENCES", self.value)
        monkeypatch.setattr(options, "_MAX_SEQUENCE_SIDE", options._MAX_SIDE)


def assert_matches(actual: Any, expected: Any, tolerance: float | None = None) -> None:
    """Assert that results are close; those of float32 have the tolerance of gradients over time."""
    assert_close(actual, expected, tolerance if WIDE == torch.float64 else 1e-3)


@contextmanager
def triton_selected() -> Iterator[None]:
    """Select the Triton backend for everything, which has any dtype and sizes in these tests.

    A kernel for the CPU would compute the whole cell.
    """
    _prepare_interpreter()
    with (
        patch.object(run_cell, "select_cell", lambda *args: None),
        patch.object(autograd, "select_chunkwise", lambda *args: backend),
        patch.object(autograd, "select_gated", lambda *args: backend),
    ):
        yield


def triton_chunkwise(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_i: Tensor,
    log_f: Tensor,
    state: mLSTMState | None = None,
    chunk_size: int | None = 16,
) -> tuple[Tensor, mLSTMState]:
    """Run ``mlstm_chunkwise`` in Triton, from tensors on the CPU to tensors on the CPU."""
    inputs = (x.to(DEVICE) for x in (q, k, v, log_i, log_f))
    state = None if state is None else mLSTMState(*(x.to(DEVICE) for x in state))
    with triton_selected():
        h, last = mlstm_chunkwise(*inputs, state, chunk_size)
    return h.cpu(), mLSTMState(*(x.cpu() for x in last))


def _prepare_interpreter() -> None:
    """Let the interpreter patch a module once per launch, and not warn of NaN and overflow.

    It would patch all of Triton's language for every call of a function inside of a kernel, which
    takes most of the time.
    """
    if DEVICE.type != "cpu":
        return
    from triton.runtime import interpreter

    function, executor = interpreter.InterpretedFunction, interpreter.GridExecutor
    if getattr(function, "_is_prepared", False):
        return
    run, patch_language = executor.__call__, interpreter._patch_lang
    patched: set[int] = set()

    def quiet_run(self: Any, *args: Any, **kwargs: Any) -> Any:
        patched.clear()
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN slice encountered", RuntimeWarning)
            return run(self, *args, **kwargs)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        module = id(self.fn.__globals__)
        if module not in patched:
            patched.add(module)
            patch_language(self.fn)
        return self.rewrite()(*args, **kwargs)

    executor.__call__, function.__call__, function._is_prepared = quiet_run, call, True
