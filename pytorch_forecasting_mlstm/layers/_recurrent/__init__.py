"""Recurrent layers."""

from ._mlstm import mLSTMCell, mLSTMLayer, use_kernel

__all__ = ["mLSTMCell", "mLSTMLayer", "use_kernel"]
