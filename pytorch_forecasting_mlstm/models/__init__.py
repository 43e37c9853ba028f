"""Forecasting models."""

from pytorch_forecasting_mlstm.models.mlstm_time import mLSTMTime, mLSTMTime_pkg

__all__ = ["mLSTMTime", "mLSTMTime_pkg"]
