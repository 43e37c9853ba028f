"""Invalid inputs of the sequence forms, and where the forms are exported."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.problems import Form, Problem, make_problem
from helpers.tolerances import assert_raises_mentioning
from pytorch_forecasting_mlstm.layers._recurrent import _mlstm
from pytorch_forecasting_mlstm.layers._recurrent._mlstm import functional
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import (
    mlstm_chunkwise,
    mlstm_recurrent,
    mlstm_step,
)

parametrize_checking_forms = pytest.mark.parametrize(
    "form", [mlstm_recurrent, mlstm_chunkwise], ids=["recurrent", "chunkwise"]
)

INVALID_INPUTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "q without heads": ({"q": torch.zeros(2, 9, 3)}, ["q", "(2, 9, 3)"]),
    "k with another length": (
        {"k": torch.zeros(2, 2, 8, 3)},
        ["k", "(2, 2, 8, 3)", "(2, 2, 9, 3)"],
    ),
    "k with another width": ({"k": torch.zeros(2, 2, 9, 4)}, ["k", "(2, 2, 9, 4)", "(2, 2, 9, 3)"]),
    "v with another batch size": ({"v": torch.zeros(1, 2, 9, 5)}, ["v", "(1, 2, 9, 5)"]),
    "v without heads": ({"v": torch.zeros(2, 9, 5)}, ["v", "(2, 9, 5)"]),
    "log_i that could be broadcast": (
        {"log_i": torch.zeros(2, 1, 9)},
        ["log_i", "(2, 1, 9)", "(2, 2, 9)"],
    ),
    "log_f with a last axis": ({"log_f": torch.zeros(2, 2, 9, 1)}, ["log_f", "(2, 2, 9, 1)"]),
    "integer q": ({"q": torch.zeros(2, 2, 9, 3, dtype=torch.int64)}, ["q", "int64"]),
    "integer gate": ({"log_i": torch.zeros(2, 2, 9, dtype=torch.int32)}, ["log_i", "int32"]),
    "c transposed": ({"c": torch.zeros(2, 2, 3, 5)}, ["c", "(2, 2, 3, 5)", "(2, 2, 5, 3)"]),
    "n with another batch size": ({"n": torch.zeros(1, 2, 3)}, ["n", "(1, 2, 3)", "(2, 2, 3)"]),
    "m with a last axis": ({"m": torch.zeros(2, 2, 1)}, ["m", "(2, 2, 1)", "(2, 2)"]),
    "half-precision state": ({"c": torch.zeros(2, 2, 5, 3).half()}, ["c", "float16", "float32"]),
    "state on another device": ({"m": torch.zeros(2, 2, device="meta")}, ["m", "meta", "cpu"]),
    "q not a tensor": ({"q": [[1.0]]}, ["q", "tensor", "list"]),
}


@parametrize_checking_forms
@pytest.mark.parametrize(("parts", "words"), INVALID_INPUTS.values(), ids=INVALID_INPUTS)
def test_invalid_input_raises(form: Form, parts: dict[str, Tensor], words: list[str]) -> None:
    problem = make_problem(9, dtype=torch.float32).replace(**parts)
    assert_raises_mentioning(lambda: form(*problem[:5], problem.state), form.__name__, *words)


@parametrize_checking_forms
@pytest.mark.parametrize("parts", [3, 2], ids=["plain tuple", "half a state"])
def test_invalid_state_raises(form: Form, parts: int) -> None:
    problem = make_problem(9)
    state = tuple(problem.state)[:parts]
    words = (form.__name__, "state", "mLSTMState", "tuple")
    assert_raises_mentioning(lambda: form(*problem[:5], state), *words)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("q", (2, 2, 1, 3), "(2, 2, 1, 3)"),
        ("k", (2, 2, 4), "(2, 2, 3)"),
        ("v", (2, 1, 5), "(2, 1, 5)"),
        ("log_i", (2,), "(2, 2)"),
        ("log_f", (2, 2, 1), "(2, 2)"),
    ],
)
def test_invalid_input_of_a_step_raises(name: str, shape: tuple, expected: str) -> None:
    problem = make_problem(1, dtype=torch.float32)
    inputs = {part: getattr(problem, part)[:, :, 0] for part in Problem._fields[:5]}
    inputs[name] = torch.zeros(shape)
    assert_raises_mentioning(
        lambda: mlstm_step(**inputs, state=problem.state), "mlstm_step", name, expected
    )


@pytest.mark.parametrize("chunk_size", [0, -1, 2.5])
def test_invalid_chunk_size_raises(chunk_size: Any) -> None:
    assert_raises_mentioning(
        lambda: mlstm_chunkwise(*make_problem(9)[:5], chunk_size=chunk_size),
        "mlstm_chunkwise",
        "chunk_size",
        str(chunk_size),
    )


def test_functional_names_are_exported_beside_cell_and_layer() -> None:
    assert set(functional.__all__) < set(_mlstm.__all__)
    assert all(getattr(_mlstm, name) is getattr(functional, name) for name in functional.__all__)
