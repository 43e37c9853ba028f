"""Quantile forecasts of a fitted model, in units of the series' spread."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from lightning.pytorch.utilities.seed import isolate_rng
from pytorch_forecasting import TimeSeriesDataSet

from ...models import mLSTMTime
from .interruption import raise_interrupts
from .layout import SERIES, TIME
from .lightning_output import SILENT_TRAINER, quiet_lightning

_BATCH_SIZE = 256


class WindowForecasts(NamedTuple):
    """Forecasts of held-out windows, and the truth.

    Attributes
    ----------
    actual : numpy.ndarray
        (W, h): scaled targets, NaN where there is none.
    quantiles : numpy.ndarray
        (W, h, Q): scaled, not decreasing along Q.
    """

    actual: np.ndarray
    quantiles: np.ndarray


def predict_windows(model: mLSTMTime, windows: TimeSeriesDataSet) -> WindowForecasts:
    """Forecast all windows of a dataset."""
    with isolate_rng(), quiet_lightning(), raise_interrupts():
        prediction = model.predict(
            windows,
            mode="quantiles",
            return_y=True,
            batch_size=_BATCH_SIZE,
            trainer_kwargs=dict(SILENT_TRAINER),
        )
    quantiles = prediction.output.cpu().double().numpy()
    return WindowForecasts(
        actual=prediction.y[0].cpu().double().numpy(),
        # A network's quantiles may cross; sorting them cannot make the forecast worse.
        quantiles=np.sort(quantiles, axis=-1),
    )


def predict_future(
    model: mLSTMTime, frame: pd.DataFrame, end: int, horizon: int, levels: list[float]
) -> np.ndarray:
    """Forecast the steps after the end of each series.

    Parameters
    ----------
    model : mLSTMTime
        The fitted model.
    frame : pandas.DataFrame
        From `Layout.frame`: the rows of each series, and what is known of its horizon.
    end : int
        Time index of the first step to forecast.
    horizon : int
        Steps to forecast; beyond those of training, forecasts are fed back.
    levels : list of float
        The quantiles of the model.

    Returns
    -------
    numpy.ndarray
        (series, h, Q): scaled, not decreasing along Q, in the order of the rows.
    """
    ahead = frame[TIME] >= end
    future = frame[ahead & (frame[TIME] < end + horizon)]
    forecast = model.forecast(
        frame[~ahead],
        future if len(future) else None,
        horizon=horizon,
        batch_size=_BATCH_SIZE,
    )
    # A model of the median alone has no column for it but that of the point forecast.
    columns = [f"q{level:g}" for level in levels] if len(levels) > 1 else ["prediction"]
    count = frame[SERIES].nunique()
    return forecast[columns].to_numpy(float).reshape(count, horizon, len(levels))
