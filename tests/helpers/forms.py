"""The sequence forms and their oracles, with one signature."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from helpers.problems import Form, Problem
from helpers.reference import reference_mlstm, running_maximum
from helpers.triton_kernels import DEVICE, TritonPlan, needs_triton
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import (
    mlstm_chunkwise,
    mlstm_read_weights,
    mlstm_recurrent,
    mlstm_step,
    mLSTMState,
)

INF = math.inf


def stepped(
    q: Tensor, k: Tensor, v: Tensor, log_i: Tensor, log_f: Tensor, state: mLSTMState | None = None
) -> tuple[Tensor, mLSTMState]:
    """Loop over ``mlstm_step``."""
    if state is None:
        B, NH, _, K = k.shape
        zeros = v.new_zeros
        state = mLSTMState(zeros(B, NH, v.shape[-1], K), zeros(B, NH, K), zeros(B, NH) - INF)
    outputs = []
    for t in range(q.shape[2]):
        h, state = mlstm_step(*(part[:, :, t] for part in (q, k, v, log_i, log_f)), state)
        outputs.append(h)
    return torch.stack(outputs, dim=2), state


FORMS: dict[str, Form] = {
    "step": stepped,
    "recurrent": mlstm_recurrent,
    "chunkwise": mlstm_chunkwise,
    "chunks-of-1": partial(mlstm_chunkwise, chunk_size=1),
    "chunks-of-7": partial(mlstm_chunkwise, chunk_size=7),
    "chunks-of-1000": partial(mlstm_chunkwise, chunk_size=1000),
}
SEQUENCE_FORMS = {name: form for name, form in FORMS.items() if name != "step"}
#: The kernels with each way to divide the work, which the fixture ``form`` chooses for a test.
#: Under Triton's interpreter, each of these takes about a second: tests/ops/triton has quick ones.
#: They are in float64, for which a GPU's compiler takes minutes.
TRITON = [
    pytest.param(
        plan,
        id=f"triton-{plan.name}",
        marks=[
            needs_triton,
            pytest.mark.slow,
            pytest.mark.skipif(DEVICE.type == "cuda", reason="float64 takes the compiler minutes"),
        ],
    )
    for plan in TritonPlan
]


def parametrize_with(forms: dict[str, Form]) -> pytest.MarkDecorator:
    """Run a test over some forms and the Triton kernels."""
    params = [*(pytest.param(form, id=name) for name, form in forms.items()), *TRITON]
    return pytest.mark.parametrize("form", params, indirect=True)


parametrize_forms = parametrize_with(FORMS)
parametrize_sequence_forms = parametrize_with(SEQUENCE_FORMS)


def empty_state(problem: Problem) -> mLSTMState:
    """Return the empty memory in its mathematical form, with m = -inf."""
    return mLSTMState(
        torch.zeros_like(problem.c),
        torch.zeros_like(problem.n),
        torch.full_like(problem.m, -INF),
    )


def paper_form(
    q: Tensor, k: Tensor, v: Tensor, log_i: Tensor, log_f: Tensor, state: mLSTMState
) -> tuple[Tensor, mLSTMState]:
    """Run the oracle with the signature of the forms: stabilized state in and out."""
    c, n, m = state
    scale = m.exp()
    h, c, n = reference_mlstm(
        q, k, v, log_i, log_f, c * scale[..., None, None], n * scale[..., None]
    )
    m = running_maximum(log_i, log_f, m)
    scale = (-m).exp()
    return h, mLSTMState(c * scale[..., None, None], n * scale[..., None], m)


def attention(
    q: Tensor, k: Tensor, v: Tensor, log_i: Tensor, log_f: Tensor, state: None = None
) -> Tensor:
    """Read with the weights of the attention form, which has no initial state."""
    assert state is None
    return mlstm_read_weights(q, k, log_i, log_f) @ v


def true_memory(state: mLSTMState) -> tuple[Tensor, Tensor]:
    """Return c and n without the stabilizer."""
    return state.c * state.m.exp()[..., None, None], state.n * state.m.exp()[..., None]
