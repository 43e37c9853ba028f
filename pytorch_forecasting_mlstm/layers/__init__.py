"""Layers of neural networks."""

from pytorch_forecasting_mlstm.layers._recurrent import mLSTMCell, mLSTMLayer

__all__ = ["mLSTMCell", "mLSTMLayer"]
