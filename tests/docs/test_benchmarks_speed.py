"""The speed benchmark refuses to time incorrect forms and layers."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from pytorch_forecasting_mlstm import mLSTMLayer
from pytorch_forecasting_mlstm.layers.functional import mlstm_chunkwise, mLSTMState

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("mlstm_speed")


@pytest.fixture(scope="module")
def shapes(benchmark: ModuleType) -> list[Any]:
    return importlib.import_module("_speed_checks").AWKWARD


def wrong_values(*inputs: Any) -> tuple[Tensor, mLSTMState]:
    h, state = mlstm_chunkwise(*inputs)
    return h * 1.001, state


def wrong_state(*inputs: Any) -> tuple[Tensor, mLSTMState]:
    h, (c, n, m) = mlstm_chunkwise(*inputs)
    return h, mLSTMState(c, n + 1e-3, m)


def wrong_gradient(q: Tensor, *inputs: Any) -> tuple[Tensor, mLSTMState]:
    return mlstm_chunkwise(q.detach() + 1.01 * (q - q.detach()), *inputs)


def nan_values(*inputs: Any) -> tuple[Tensor, mLSTMState]:
    h, state = mlstm_chunkwise(*inputs)
    return h * torch.nan, state


def test_require_correct_accepts_mlstm_chunkwise(benchmark: ModuleType, shapes: list[Any]) -> None:
    benchmark.require_correct(mlstm_chunkwise, CPU, shapes[:3])
    benchmark.require_correct_naive_form(CPU)


@pytest.mark.parametrize(
    ("form", "result"),
    [
        (wrong_values, "h of"),
        (wrong_state, "n of"),
        (wrong_gradient, "gradient of q of"),
        (nan_values, "h of"),
    ],
)
def test_require_correct_names_a_wrong_result(
    benchmark: ModuleType, shapes: list[Any], form: Any, result: str
) -> None:
    with pytest.raises(SystemExit, match=f"wrong, nothing is timed: {result}"):
        benchmark.require_correct(form, CPU, shapes[1:2])


def test_require_correct_layer_refuses_a_wrong_layer(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark.require_correct_layer(CPU)
    forward = mLSTMLayer.forward
    monkeypatch.setattr(mLSTMLayer, "forward", lambda *x: (forward(*x)[0] * 1.001, None))
    with pytest.raises(SystemExit, match="The layer is wrong, nothing is timed: 70 steps"):
        benchmark.require_correct_layer(CPU)


def test_row_says_whether_its_target_is_met(benchmark: ModuleType) -> None:
    row = benchmark.Row("case", "ours", 3.0, "theirs", 4.0, maximum=0.75)
    assert row.cells[-3:] == ("0.75", "≤ 0.75", "yes")
    assert row._replace(figure=3.1).cells[-1] == "NO"
    assert row._replace(maximum=float("inf"), minimum=2.0).cells[-2:] == ("≥ 2", "NO")
