"""The mLSTM recurrence as pure functions, without weights."""

from ._recurrent._mlstm.functional import (
    mlstm_chunkwise,
    mlstm_read_weights,
    mlstm_recurrent,
    mlstm_step,
    mLSTMState,
)

__all__ = [
    "mLSTMState",
    "mlstm_chunkwise",
    "mlstm_read_weights",
    "mlstm_recurrent",
    "mlstm_step",
]
