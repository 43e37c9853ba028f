"""The sequence forms, with one signature."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from helpers.problems import Form
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import (
    mlstm_chunkwise,
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
