"""The seasonal naive forecast, the baseline of every model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .windows import Windows

_MIN_WINDOWS_PER_STEP = 50  # for separate quantiles of each step of the horizon


@dataclass(frozen=True)
class SeasonalNaive:
    """A seasonal naive forecast with the spread of its own errors.

    Attributes
    ----------
    season : int
        Steps of the season that it repeats.
    spread : numpy.ndarray
        (h, Q): quantiles of its errors on the validation part, each divided by the scale of its
        series.
    """

    season: int
    spread: np.ndarray

    @classmethod
    def fit(
        cls, windows: Windows, seasons: list[int], scale: np.ndarray, levels: np.ndarray
    ) -> SeasonalNaive:
        """Choose the season with the lowest mean absolute error, and measure the spread.

        Parameters
        ----------
        windows : Windows
            The validation windows, which also select the model's epoch.
        seasons : list of int
            Candidates, in steps.
        scale : numpy.ndarray
            (series,): divides the errors, so that those of different series are comparable.
        levels : numpy.ndarray
            (Q,): levels of the quantiles.
        """
        window_scale = scale[windows.series][:, None]
        errors_by_season = {
            season: (windows.actual - _point_forecasts(windows, season)) / window_scale
            for season in seasons
        }
        season = min(errors_by_season, key=lambda season: np.abs(errors_by_season[season]).mean())
        errors = errors_by_season[season]
        if len(errors) >= _MIN_WINDOWS_PER_STEP:
            spread = np.quantile(errors, levels, axis=0).T
        else:
            spread = np.tile(np.quantile(errors, levels), (errors.shape[1], 1))
        return cls(season, spread)

    def predict(self, windows: Windows, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return point forecasts (W, h) and quantiles (W, h, Q)."""
        point = _point_forecasts(windows, self.season)
        return point, point[..., None] + self.spread * scale[windows.series][:, None, None]


def seasonal_naive(history: np.ndarray, season: int, horizon: int) -> np.ndarray:
    """Repeat the last season, or the last value if the history is shorter than a season.

    Parameters
    ----------
    history : numpy.ndarray
        Values before the forecast, oldest first.
    season : int
        Steps of a season; 1 repeats the last value.
    horizon : int
        Steps to forecast.

    Examples
    --------
    >>> seasonal_naive(np.array([9, 1, 2, 3]), season=3, horizon=5)
    array([1, 2, 3, 1, 2])
    """
    season = season if len(history) >= season else 1
    return history[len(history) - season + np.arange(horizon) % season]


def _point_forecasts(windows: Windows, season: int) -> np.ndarray:
    horizon = windows.actual.shape[1]
    return np.stack([seasonal_naive(history, season, horizon) for history in windows.history])
