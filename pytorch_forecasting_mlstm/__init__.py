"""A working mLSTM for pytorch-forecasting, from the cell to forecasts of tables."""

from ._registry import register, unregister
from .forecaster import BacktestResult, Forecaster, InputError
from .layers import BackendInfo, backend, mLSTMCell, mLSTMLayer, use_kernel
from .models import mLSTMTime, mLSTMTime_pkg

__version__ = "0.2.0"

__all__ = [
    "BackendInfo",
    "BacktestResult",
    "Forecaster",
    "InputError",
    "backend",
    "mLSTMCell",
    "mLSTMLayer",
    "mLSTMTime",
    "mLSTMTime_pkg",
    "register",
    "unregister",
    "use_kernel",
]
