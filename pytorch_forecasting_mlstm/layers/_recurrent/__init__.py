"""Recurrent layers."""

from pytorch_forecasting_mlstm.layers._recurrent._mlstm import mLSTMCell, mLSTMLayer, use_kernel

__all__ = ["mLSTMCell", "mLSTMLayer", "use_kernel"]
