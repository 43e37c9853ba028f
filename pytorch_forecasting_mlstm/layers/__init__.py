"""Layers of neural networks."""

from . import functional
from ._recurrent import BackendInfo, backend, mLSTMCell, mLSTMLayer, use_kernel

__all__ = ["BackendInfo", "backend", "functional", "mLSTMCell", "mLSTMLayer", "use_kernel"]
