"""The implementation of :mod:`pytorch_forecasting_mlstm.resume`, which is the public module."""
