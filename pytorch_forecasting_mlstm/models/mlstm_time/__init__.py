"""The mLSTMTime model."""

from ._mlstm_time import mLSTMTime
from ._mlstm_time_pkg import mLSTMTime_pkg

__all__ = ["mLSTMTime", "mLSTMTime_pkg"]
