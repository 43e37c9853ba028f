"""What LightGBM sees of a panel: lags, rolling means, calendar, covariates and the series.

A row is a series, a time to forecast, and the number of steps since the last known value (1 for the
next one). Nothing in a row is newer than this value, except for covariates that are known ahead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from _forecast_panel import Panel

_CHUNK = 20_000  # rows, so that gathering their windows takes little memory
_MONTH, _YEAR = pd.Timedelta(days=31), pd.Timedelta(days=366)


@dataclass(frozen=True)
class Inputs:
    """The choice of inputs that a trial makes.

    Attributes
    ----------
    recursive : bool
        Whether one model forecasts the next step and its forecasts are fed back, or one model with
        the step as an input forecasts all steps.
    difference : bool
        Whether targets and lags are relative to the mean of the last values.
    lags : int
        Number of last values.
    cycles : int
        Number of values at the same position of each season.
    rolling : tuple of int
        Lengths of rolling means and standard deviations.
    known_at_lags : bool
        Whether covariates that are known ahead are also given one season earlier.
    """

    recursive: bool
    difference: bool
    lags: int
    cycles: int
    rolling: tuple[int, ...]
    known_at_lags: bool


@dataclass(frozen=True)
class Rows:
    """N rows: series and time by position, and steps since the last known value."""

    series: np.ndarray
    time: np.ndarray
    ahead: np.ndarray

    def take(self, rows: np.ndarray | slice) -> Rows:
        """Return some of them."""
        return Rows(self.series[rows], self.time[rows], self.ahead[rows])

    def __len__(self) -> int:
        return len(self.series)


class Features:
    """Computes the inputs of rows.

    Parameters
    ----------
    panel : Panel
        The series; its `values` are not read here.
    seasons : tuple of int
        Seasons, in steps.
    horizon : int
        Steps to forecast.
    inputs : Inputs
        The choice of inputs.
    """

    def __init__(
        self, panel: Panel, seasons: tuple[int, ...], horizon: int, inputs: Inputs
    ) -> None:
        self.panel = panel
        self.seasons = [season for season in seasons if season > 1]
        self.horizon = horizon
        self.inputs = inputs
        self.recent = max(4, seasons[0])
        self.calendar = _calendar(panel.times)
        series = [np.arange(len(panel.keys)), *(pd.factorize(c)[0] for _, c in panel.keys.items())]
        self.series = np.stack(series, axis=-1).astype(float)
        # The series come first in a row, and then the covariates that are known ahead.
        names = self.series.shape[1]
        self.classes = [*range(names), *(names + place for place in panel.known_classes)]

    def level(self, values: np.ndarray, rows: Rows) -> np.ndarray:
        """Return what targets and lags are relative to, (N,)."""
        if not self.inputs.difference:
            return np.zeros(len(rows))
        return _last(values, rows, self.recent).mean(axis=1)

    def __call__(self, values: np.ndarray, rows: Rows) -> np.ndarray:
        """Return the inputs of N rows, (N, F), from values (S, T)."""
        parts = [rows.take(slice(k, k + _CHUNK)) for k in range(0, len(rows), _CHUNK)]
        return np.concatenate([self._part(values, part) for part in parts])

    def _part(self, values: np.ndarray, rows: Rows) -> np.ndarray:
        panel, inputs = self.panel, self.inputs
        series = rows.series % len(panel.keys)  # values may hold the same series several times
        # Fed back, a forecast step has no newer values of the past covariates than the first.
        delay = np.full(len(rows), self.horizon) if inputs.recursive else rows.ahead
        columns = [self.series[series], panel.known[series, rows.time], panel.static[series]]
        columns += [self.calendar[rows.time], rows.ahead[:, None]]
        columns.append(_at(panel.past, series, rows.time - delay))
        lagged = [_last(values, rows, inputs.lags)]
        spreads = []
        for length in inputs.rolling:
            window = _last(values, rows, length)
            lagged.append(window.mean(axis=1, keepdims=True))
            spreads.append(window.std(axis=1, keepdims=True))
        for season in self.seasons:
            first = rows.time - season * -(-rows.ahead // season)
            cycles = first[:, None] - season * np.arange(inputs.cycles)
            same = _at(values, rows.series[:, None], cycles)
            lagged += [same, same.mean(axis=1, keepdims=True)]
            columns.append(_at(panel.past, series, rows.time - season * -(-delay // season)))
            if inputs.known_at_lags:
                columns.append(_at(panel.known, series, first))
        relative = np.concatenate(lagged, axis=1) - self.level(values, rows)[:, None]
        return np.concatenate([*columns, relative, *spreads], axis=1)


def _last(values: np.ndarray, rows: Rows, count: int) -> np.ndarray:
    """Return the last known values of each row, (N, count)."""
    newest = rows.time - rows.ahead
    return _at(values, rows.series[:, None], newest[:, None] - np.arange(count))


def _at(array: np.ndarray, series: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return values at positions, NaN before the first time."""
    values = array[series, np.maximum(time, 0)]
    values[time < 0] = np.nan
    return values


def _calendar(times: pd.DatetimeIndex) -> np.ndarray:
    """Return parts of the dates, (T, C): those that vary, and that return within the table."""
    parts = [times.hour + times.minute / 60, times.dayofweek]
    span = times[-1] - times[0]
    if span > _MONTH:
        parts.append(times.day)
    if span > _YEAR:
        parts += [times.dayofyear, times.isocalendar().week, times.month, times.quarter]
    table = np.stack([np.asarray(part, dtype=float) for part in parts], axis=-1)
    return table[:, np.ptp(table, axis=0) > 0]
