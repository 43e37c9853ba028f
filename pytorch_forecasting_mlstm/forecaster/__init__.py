"""Forecasts of tables: `Forecaster` fits, predicts, backtests, tunes, updates, saves and plots."""

from .backtest_result import BacktestResult
from .errors import InputError
from .forecaster import Forecaster

__all__ = ["BacktestResult", "Forecaster", "InputError"]
