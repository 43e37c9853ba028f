"""The seasonal naive forecast: what any model must beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .windows import Windows

_ENOUGH_PER_STEP = 50  # errors that make a quantile of one step of the horizon


def seasonal_naive(history: np.ndarray, season: int, horizon: int) -> np.ndarray:
    """Repeat the last whole season; the last value where the history is shorter.

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


@dataclass(frozen=True)
class SeasonalNaive:
    """A seasonal naive forecast with the spread of its own errors.

    Attributes
    ----------
    season : int
        Steps of the season it repeats.
    spread : numpy.ndarray
        (h, Q): quantiles of its errors on the validation part, each divided by its series' scale.
    """

    season: int
    spread: np.ndarray

    @classmethod
    def fit(
        cls, windows: Windows, seasons: list[int], scale: np.ndarray, levels: np.ndarray
    ) -> SeasonalNaive:
        """Choose the season with the least mean absolute error, and measure the spread.

        Both on `windows`, those that choose the model's epoch.

        Parameters
        ----------
        windows : Windows
            Held-out windows, not those to be reported.
        seasons : list of int
            To choose from.
        scale : numpy.ndarray
            (series,): makes the errors of different series comparable.
        levels : numpy.ndarray
            (Q,): quantiles wanted.
        """
        of_window = scale[windows.series][:, None]
        scaled = {
            season: (windows.actual - _points(windows, season)) / of_window for season in seasons
        }
        season = min(scaled, key=lambda season: np.abs(scaled[season]).mean())
        wrong = scaled[season]
        if len(wrong) >= _ENOUGH_PER_STEP:
            spread = np.quantile(wrong, levels, axis=0).T
        else:
            spread = np.tile(np.quantile(wrong, levels), (wrong.shape[1], 1))
        return cls(season, spread)

    def predict(self, windows: Windows, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Point forecast (W, h) and quantiles (W, h, Q)."""
        point = _points(windows, self.season)
        return point, point[..., None] + self.spread * scale[windows.series][:, None, None]


def _points(windows: Windows, season: int) -> np.ndarray:
    horizon = windows.actual.shape[1]
    return np.stack([seasonal_naive(past, season, horizon) for past in windows.history])
