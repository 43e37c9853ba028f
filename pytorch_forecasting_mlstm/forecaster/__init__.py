"""Forecasts of tables: `Forecaster` fits, predicts, backtests, tunes, updates, saves and plots."""

from .errors import InputError
from .evaluation.backtest_result import BacktestResult
from .forecaster import Forecaster

__all__ = ["BacktestResult", "Forecaster", "InputError"]
