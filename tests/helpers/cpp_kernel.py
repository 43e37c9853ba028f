"""Inputs and oracles for tests of the C++ kernel, and what they need to build it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.problems import Problem
from helpers.reference import reference_mlstm
from pytorch_forecasting_mlstm import use_kernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops import dispatch
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cpp import bindings, library
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cpp.self_test import self_test

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel needs Linux")
needs_compiler = pytest.mark.skipif(
    sys.platform != "linux" or not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="the kernel needs Linux and a C++ compiler",
)


def clear_kernel_caches() -> None:
    """Forget the loaded library and its self-test, as in a new process."""
    bindings._bound.clear()
    for cached in (
        *(library.existing_library, library.build_library, self_test),
        *(dispatch._read_variable, dispatch._lasting),
    ):
        cached.cache_clear()


def use_kernel_error() -> str:
    """Return the text of the error that ``use_kernel()`` raises."""
    with pytest.raises(RuntimeError, match="^use_kernel: ") as raised:
        use_kernel()
    assert not dispatch._enabled["cpu"]
    return str(raised.value)


def write_compiler(tmp_path: Path, script: str) -> str:
    """Write a compiler that passes the version check, then runs ``script`` to write ``$made``."""
    compiler = tmp_path / "my-compiler"
    compiler.write_text(
        '#!/bin/sh\nfor made; do :; done\n[ "$made" = /dev/null ] && exit\n' + script
    )
    compiler.chmod(0o700)
    return str(compiler)


def draw(
    T: int, NH: int, d: int, dtype: torch.dtype = torch.float64, B: int = 3
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw pre-activations and a state that is not empty."""
    shapes = (B, T, 4 * NH * d + 2 * NH), (B, NH, d, d), (B, NH, d)
    p, c, n = (torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)
    return p, c, n


def with_gradients(
    form: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...], *constants: Any
) -> tuple[Tensor, ...]:
    """Return the outputs of ``form``, and the gradients of a combination of them."""
    results = form(*inputs, *constants)
    loss = sum(((j + 1) * part.sin()).sum() for j, part in enumerate(results))
    return *results, *torch.autograd.grad(loss, inputs)


def gated_reference(
    p: Tensor, c: Tensor, n: Tensor, padding: Tensor | None, norms: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Split, normalize, gate and read step by step, by the equations of the paper."""
    NH, d = n.shape[1:]
    H = NH * d
    parts = list(p.split([H, H, H, 2 * NH + H], dim=-1))
    if norms:
        for j, part in enumerate(parts):
            centered = part - part.mean(-1, keepdim=True)
            spread = (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt()
            parts[j] = centered / spread * norms[j] + norms[4 + j]
    q, k, v = (part.unflatten(-1, (NH, d)).transpose(1, 2) for part in parts[:3])
    i, f, o = parts[3].split([NH, NH, H], dim=-1)
    log_i, log_f = 15 * torch.tanh(i / 15), -torch.log1p(torch.exp(-f))
    if padding is not None:
        log_i, log_f = log_i.masked_fill(padding, -torch.inf), log_f.masked_fill(padding, 0.0)
    log_i, log_f = log_i.mT, log_f.mT
    h, c, n = reference_mlstm(q, k / d**0.5, v, log_i, log_f, c, n)
    return torch.sigmoid(o) * h.transpose(1, 2).flatten(-2), c, n


def cell_reference(
    x: Tensor, weight: Tensor, bias: Tensor, c: Tensor, n: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    """Return h and the last c and n of a cell; ``rest`` ends with the padding."""
    *affine, padding = rest
    return gated_reference(x @ weight.T + bias, c, n, padding, list(affine))


def draw_cell(
    T: int,
    NH: int,
    d: int,
    input_size: int,
    norms: bool,
    dtype: torch.dtype = torch.float64,
    B: int = 3,
) -> tuple[Tensor, ...]:
    """Draw the inputs of a cell, but for the padding."""
    H, W = NH * d, 4 * NH * d + 2 * NH
    _, c, n = draw(T, NH, d, dtype, B)
    shapes: list[tuple[int, ...]] = [(B, T, input_size), (W, input_size), (W,)]
    x, weight, bias = (torch.randn(shape, dtype=dtype) for shape in shapes)
    inputs = [x, weight / input_size**0.5, bias]
    sizes = [H, H, H, H + 2 * NH] * 2 if norms else []
    affine = [torch.randn(size, dtype=dtype) for size in sizes]
    return *(part.requires_grad_() for part in inputs), c, n, *(a.requires_grad_() for a in affine)


def draw_problem(
    T: int,
    d: int,
    dtype: torch.dtype = torch.float64,
    B: int = 2,
    NH: int = 3,
    V: int | None = None,
) -> Problem:
    """Draw a problem in which both sides of ``max(|nᵀq|, 1)`` occur."""
    V = d if V is None else V
    shapes = (B, NH, T, d), (B, NH, T, d), (B, NH, T, V), (B, NH, T), (B, NH, T)
    q, k, v, log_i, log_f = (torch.randn(shape, dtype=dtype) for shape in shapes)
    k, log_f = k / d**0.5, torch.nn.functional.logsigmoid(2 * log_f + 2)
    state = (torch.randn(shape, dtype=dtype) for shape in ((B, NH, V, d), (B, NH, d), (B, NH)))
    problem = Problem(q, k, v, log_i, log_f, *state)
    return Problem(*(part.requires_grad_() for part in problem))
