"""AutoETS of statsforecast, an optional baseline."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from ..errors import InputError

_MAX_SEASON = 24  # statsforecast leaves the season out of a model with a longer one
_MAX_VALUES = 2000  # more take up to minutes for each forecast


def has_statsforecast() -> bool:
    """Return whether statsforecast is installed, which `ets_forecast` needs."""
    return find_spec("statsforecast") is not None


def ets_forecast(
    history: np.ndarray, horizon: int, seasons: Sequence[int], levels: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Forecast one series with the exponential smoothing model that fits it best.

    Parameters
    ----------
    history : numpy.ndarray
        (N,): values before the forecast, oldest first, of which the last 2000 are used. Missing
        ones (NaN) are interpolated, and the last value is repeated for those at the end, since the
        model needs a complete history.
    horizon : int
        h: steps to forecast.
    seasons : sequence of int
        Seasons of the data, in steps. The longest of at most 24 steps is used, which is the longest
        that AutoETS can model.
    levels : sequence of float
        (Q,): levels of the quantiles, between 0 and 1.

    Returns
    -------
    point, quantiles : numpy.ndarray
        (h,) and (h, Q): the forecast, and its prediction intervals. NaN if AutoETS has no model for
        the history, which happens below eight values or so.

    Raises
    ------
    InputError
        If statsforecast is not installed.
    """
    if not has_statsforecast():
        raise InputError(
            "AutoETS needs statsforecast, which is not installed: "
            "pip install 'pytorch-forecasting-mlstm[baselines]'"
        )
    # It compiles code as it is imported, which takes seconds.
    from statsforecast.models import AutoETS

    nothing = np.full(horizon, np.nan), np.full((horizon, len(levels)), np.nan)
    values = _fill(np.asarray(history, dtype=float))[-_MAX_VALUES:]
    if not len(values):
        return nothing
    season = max((season for season in seasons if season <= _MAX_SEASON), default=1)
    coverages = sorted({_coverage(level) for level in levels} - {0.0})
    try:
        with np.errstate(all="ignore"):
            result = AutoETS(season_length=season).forecast(values, horizon, level=coverages)
    except Exception:  # NotImplementedError, IndexError, plain Exception: whatever it fails with
        return nothing
    columns = [
        result["mean"]
        if _coverage(level) == 0
        else result[f"{'lo' if level < 0.5 else 'hi'}-{_coverage(level)}"]
        for level in levels
    ]
    point, quantiles = np.asarray(result["mean"], float), np.stack(columns, axis=-1)
    complete = np.isfinite(point).all() and np.isfinite(quantiles).all()
    return (point, quantiles) if complete else nothing


def _coverage(level: float) -> float:
    """Return the coverage in percent of the interval that a quantile bounds."""
    return round(abs(200 * level - 100), 6)


def _fill(history: np.ndarray) -> np.ndarray:
    """Interpolate missing values, without those before the first value."""
    known = np.flatnonzero(~np.isnan(history))
    if not known.size:
        return history[:0]
    return np.interp(np.arange(known[0], len(history)), known, history[known])
