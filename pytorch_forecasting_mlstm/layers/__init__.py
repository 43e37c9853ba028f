"""Layers of neural networks."""

from ._recurrent import mLSTMCell, mLSTMLayer, use_kernel

__all__ = ["mLSTMCell", "mLSTMLayer", "use_kernel"]
