"""Layers of neural networks."""

from pytorch_forecasting_mlstm.layers._recurrent import mLSTMCell, mLSTMLayer, use_kernel

__all__ = ["mLSTMCell", "mLSTMLayer", "use_kernel"]
