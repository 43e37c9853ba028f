"""Recurrent layers."""

from ._mlstm import BackendInfo, backend, mLSTMCell, mLSTMLayer, use_kernel

__all__ = ["BackendInfo", "backend", "mLSTMCell", "mLSTMLayer", "use_kernel"]
