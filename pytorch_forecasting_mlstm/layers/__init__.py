"""Layers of neural networks."""

from . import functional
from ._recurrent import mLSTMCell, mLSTMLayer, use_kernel

__all__ = ["functional", "mLSTMCell", "mLSTMLayer", "use_kernel"]
