"""A working mLSTM for pytorch-forecasting, from the cell to forecasts of tables."""

from ._registry import register, unregister
from .forecaster import BacktestResult, Forecaster, InputError
from .layers import mLSTMCell, mLSTMLayer, use_kernel
from .models import mLSTMTime, mLSTMTime_pkg

__version__ = "0.1.0"

__all__ = [
    "BacktestResult",
    "Forecaster",
    "InputError",
    "mLSTMCell",
    "mLSTMLayer",
    "mLSTMTime",
    "mLSTMTime_pkg",
    "register",
    "unregister",
    "use_kernel",
]
