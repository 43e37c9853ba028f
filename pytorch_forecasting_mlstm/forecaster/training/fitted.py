"""The result of a fit."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from pytorch_forecasting import TimeSeriesDataSet

from ...models import mLSTMTime
from .calibration import Calibration
from .layout import Layout
from .scaling import Scaling


@dataclass(frozen=True)
class Fitted:
    """Fitted models, whose forecasts are averaged, and what is needed to forecast with them.

    Attributes
    ----------
    models : tuple of mLSTMTime
        The models, which differ by their seed.
    linear : mLSTMTime or None
        A model that is not trained, which is the linear forecast. None if it has no share.
    share : float
        The share of the models in the forecast; the rest is that of `linear`.
    dataset : TimeSeriesDataSet
        The windows that they were fitted to.
    layout : Layout
        Columns of the dataset.
    scaling : Scaling
        Scales of the series.
    calibration : Calibration
        Shifts of the quantiles.
    lower_bound : float
        Forecasts below it are raised to it.
    history : int
        Steps that the models look back.
    memory_length : int
        The last ones of these, which their memories read.
    epochs : int
        Epochs of the training.
    learning_rate : float
        The rate of its first epoch.
    validation_loss : float
        Its quantile loss on the held-out rows, in units of the series' spread; NaN without them.
    trials : dict of int to float
        The validation loss of each length of the history that a memory has read.
    """

    models: tuple[mLSTMTime, ...]
    linear: mLSTMTime | None
    share: float
    dataset: TimeSeriesDataSet
    layout: Layout
    scaling: Scaling
    calibration: Calibration
    lower_bound: float
    history: int
    memory_length: int
    epochs: int
    learning_rate: float
    validation_loss: float
    trials: dict[int, float]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during the fit; `fitted` is the best model so far, and `groups` are its series."""

    def __init__(self, fitted: Fitted, groups: pd.DataFrame) -> None:
        super().__init__()
        self.fitted, self.groups = fitted, groups
