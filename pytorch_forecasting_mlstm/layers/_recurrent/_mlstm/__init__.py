"""mLSTM: the maths, the cell, the layer."""

from .cell import mLSTMCell
from .functional import (
    mlstm_chunkwise,
    mlstm_read_weights,
    mlstm_recurrent,
    mlstm_step,
    mLSTMState,
)
from .layer import mLSTMLayer
from .ops.dispatch import BackendInfo, backend, use_kernel

__all__ = [
    "BackendInfo",
    "backend",
    "mLSTMCell",
    "mLSTMLayer",
    "mLSTMState",
    "mlstm_chunkwise",
    "mlstm_read_weights",
    "mlstm_recurrent",
    "mlstm_step",
    "use_kernel",
]
