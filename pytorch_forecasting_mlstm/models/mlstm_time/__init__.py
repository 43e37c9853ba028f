"""The mLSTMTime model."""

from pytorch_forecasting_mlstm.models.mlstm_time._mlstm_time import mLSTMTime
from pytorch_forecasting_mlstm.models.mlstm_time._mlstm_time_pkg import mLSTMTime_pkg

__all__ = ["mLSTMTime", "mLSTMTime_pkg"]
