"""Evaluate the model on a panel, and forecast its future."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .datasets import held_out_set, model_frame, training_set
from .evaluation import Evaluation, evaluate
from .panel import Panel
from .prediction import predict_future, predict_windows
from .splits import Split
from .training import FitResult, OnEpoch, fit


@dataclass(frozen=True)
class Backtest:
    """A model fitted without the held-out parts, and its evaluation on the test part."""

    fitted: FitResult
    evaluation: Evaluation


def backtest(
    panel: Panel,
    split: Split,
    *,
    epochs: int,
    seed: int,
    max_seconds: float | None = None,
    on_epoch: OnEpoch | None = None,
) -> Backtest:
    """Fit on the training part, select the epoch on validation, and evaluate on the test part.

    Parameters
    ----------
    panel, split : Panel, Split
        The series and their parts.
    epochs, seed, max_seconds, on_epoch
        As in `fit`.
    """
    frame = model_frame(panel, split)
    training = training_set(frame, split, end=split.validation)
    validation = held_out_set(training, frame, split.validation_origins, split.horizon)
    fitted = fit(
        training, validation, epochs=epochs, seed=seed, max_seconds=max_seconds, on_epoch=on_epoch
    )
    test = held_out_set(training, frame, split.test_origins, split.horizon)
    forecasts = predict_windows(fitted.model, test, frame, panel.lower_bound())
    return Backtest(fitted, evaluate(panel, split, forecasts))


def forecast(
    panel: Panel, split: Split, *, epochs: int, seed: int, on_epoch: OnEpoch | None = None
) -> np.ndarray:
    """Fit on all rows, for all `epochs`, and forecast the steps after the end of each series.

    Parameters
    ----------
    panel, split : Panel, Split
        The series, with horizon and history.
    epochs : int
        Number of epochs, such as the one that `backtest` selected.
    seed, on_epoch
        As in `fit`.

    Returns
    -------
    numpy.ndarray
        (series, h, Q): quantiles in the unit of the panel.
    """
    frame = model_frame(panel, split)
    training = training_set(frame, split, end=split.end)
    fitted = fit(training, None, epochs=epochs, seed=seed, on_epoch=on_epoch)
    return predict_future(fitted.model, frame, panel.lower_bound())
