"""Forecasting models."""

from .mlstm_time import mLSTMTime, mLSTMTime_pkg

__all__ = ["mLSTMTime", "mLSTMTime_pkg"]
