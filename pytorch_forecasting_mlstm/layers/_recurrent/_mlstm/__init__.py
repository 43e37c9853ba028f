"""mLSTM: the maths, the cell, the layer."""

from pytorch_forecasting_mlstm.layers._recurrent._mlstm._kernel import use_kernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.cell import mLSTMCell
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import (
    mlstm_chunkwise,
    mlstm_read_weights,
    mlstm_recurrent,
    mlstm_step,
    mLSTMState,
)
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.layer import mLSTMLayer

__all__ = [
    "mLSTMCell",
    "mLSTMLayer",
    "mLSTMState",
    "mlstm_chunkwise",
    "mlstm_read_weights",
    "mlstm_recurrent",
    "mlstm_step",
    "use_kernel",
]
