"""Forecast the series of a panel with fitted models."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...models import mLSTMTime
from ..panel.panel import Panel
from ..panel.windows import cut_last_windows
from ..tables.groups import match_series
from .fitted import Fitted
from .mixing import mix
from .prediction import predict_future
from .scaling import round_to_float32


def forecast_panel(
    fitted: Fitted,
    known_groups: pd.DataFrame,
    levels: tuple[float, ...],
    panel: Panel,
    horizon: int,
) -> np.ndarray:
    """Forecast the steps after the last observed target of every series.

    Each quantile is the mean of those of the models, and has a share of the linear forecast.

    Returns
    -------
    numpy.ndarray
        (series, h, Q): in the unit of the panel, not decreasing along Q.
    """
    numbers = match_series(known_groups, panel.groups)
    scaling = fitted.scaling.match(panel, numbers)
    dataset = fitted.dataset
    ordinary = scaling.without_effects(panel)
    windows = cut_last_windows(ordinary, fitted.history, int(dataset.min_encoder_length), horizon)
    end = fitted.history
    frame = fitted.layout.frame(windows, scaling, numbers, end)

    def predict(model: mLSTMTime) -> np.ndarray:
        return predict_future(model, frame, end, horizon, list(levels))

    scaled = np.mean([predict(model) for model in fitted.models], axis=0)
    if fitted.linear is not None:
        scaled = mix(scaled, predict(fitted.linear), fitted.share)
    scaled = fitted.calibration.apply(scaled)
    quantiles = scaling.unscale(scaled, panel)
    return np.maximum(round_to_float32(quantiles, scaling.spread), fitted.lower_bound)
