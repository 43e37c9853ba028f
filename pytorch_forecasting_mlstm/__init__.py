"""A working mLSTM for pytorch-forecasting: the cell, the layer, the forecasting model."""

from ._registry import register, unregister
from .layers import mLSTMCell, mLSTMLayer, use_kernel
from .models import mLSTMTime, mLSTMTime_pkg

__version__ = "0.1.0"

__all__ = [
    "mLSTMCell",
    "mLSTMLayer",
    "mLSTMTime",
    "mLSTMTime_pkg",
    "register",
    "unregister",
    "use_kernel",
]
