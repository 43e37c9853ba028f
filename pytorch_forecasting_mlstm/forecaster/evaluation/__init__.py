"""Backtests, baselines and errors."""
