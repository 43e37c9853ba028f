"""Quantile forecasts of a fitted model, in the unit of the panel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pytorch_forecasting import TimeSeriesDataSet

from ..models import mLSTMTime
from .datasets import ModelFrame
from .quantiles import QUANTILE_NAMES
from .training import BATCH_SIZE, TRAINER_OPTIONS


@dataclass(frozen=True)
class WindowForecasts:
    """Quantile forecasts of windows.

    Attributes
    ----------
    quantiles : numpy.ndarray
        (W, h, Q): in the unit of the panel, not decreasing along Q.
    series, origins : numpy.ndarray
        (W,): series and first forecast step of each window, counted as in `Split`.
    """

    quantiles: np.ndarray
    series: np.ndarray
    origins: np.ndarray


def predict_windows(
    model: mLSTMTime, windows: TimeSeriesDataSet, frame: ModelFrame, lower_bound: float
) -> WindowForecasts:
    """Forecast all windows of a dataset.

    Parameters
    ----------
    model : mLSTMTime
        The fitted model.
    windows : TimeSeriesDataSet
        Windows with the full horizon.
    frame : ModelFrame
        The table of the windows, which has the scale of each series.
    lower_bound : float
        Forecasts below it are raised to it.
    """
    prediction = model.predict(
        windows,
        mode="quantiles",
        return_index=True,
        batch_size=4 * BATCH_SIZE,
        trainer_kwargs=dict(TRAINER_OPTIONS),
    )
    series = prediction.index["series"].astype(int).to_numpy()
    scaled = prediction.output.cpu().double().numpy()
    return WindowForecasts(
        quantiles=_unscale(scaled, series, frame, lower_bound),
        series=series,
        origins=prediction.index["time_idx"].to_numpy(),
    )


def predict_future(model: mLSTMTime, frame: ModelFrame, lower_bound: float) -> np.ndarray:
    """Forecast the steps after the end of each series.

    Parameters
    ----------
    model, frame, lower_bound
        As in `predict_windows`.

    Returns
    -------
    numpy.ndarray
        (series, h, Q), in the unit of the panel, not decreasing along Q.
    """
    forecast = model.forecast(
        frame.rows,
        frame.future,
        batch_size=4 * BATCH_SIZE,
        trainer_kwargs=dict(TRAINER_OPTIONS),
    )
    scaled = forecast[list(QUANTILE_NAMES)].to_numpy(float)
    scaled = scaled.reshape(len(frame.center), -1, len(QUANTILE_NAMES))
    return _unscale(scaled, forecast["series"].unique().astype(int), frame, lower_bound)


def _unscale(
    scaled: np.ndarray, series: np.ndarray, frame: ModelFrame, lower_bound: float
) -> np.ndarray:
    """Convert quantiles (W, h, Q) of `series`, (W,), to the unit of the panel, and sort them."""
    center, spread = (scale[series][:, None, None] for scale in (frame.center, frame.spread))
    # A network's quantiles may cross; sorting them cannot make the forecast worse.
    return np.sort(np.maximum(center + spread * scaled, lower_bound), axis=-1)
