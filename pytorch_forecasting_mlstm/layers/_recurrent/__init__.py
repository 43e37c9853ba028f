"""Recurrent layers."""

from pytorch_forecasting_mlstm.layers._recurrent._mlstm import mLSTMCell, mLSTMLayer

__all__ = ["mLSTMCell", "mLSTMLayer"]
