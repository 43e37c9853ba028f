"""Forecasting on DataFrames: panels, splits, training, baselines and metrics."""
