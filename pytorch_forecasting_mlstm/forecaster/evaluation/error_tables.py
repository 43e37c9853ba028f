"""Tables of errors from the forecasts of a backtest: overall, by series, by cutoff and by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..quantile_loss import quantile_loss
from ..tables.quantile_columns import quantile_columns, symmetric_intervals


def error_table(
    forecasts: pd.DataFrame,
    scales: pd.DataFrame | None = None,
    *,
    series: Sequence[str] = (),
    by: Sequence[str] = (),
) -> pd.DataFrame:
    r"""Compute the errors of each model, of all forecasts or of groups of them.

    Parameters
    ----------
    forecasts : pandas.DataFrame
        One row per series, cutoff, step and model, with the columns "model", "cutoff", "step",
        "actual" and "prediction", those of `series`, and quantiles such as "q0.1".
    scales : pandas.DataFrame, optional
        What MASE divides by, in the column "scale": one row per series and cutoff, with the columns
        `series` and "cutoff". From `metrics.seasonal_scale`; NaN leaves a series out of MASE.
    series : sequence of str, default ()
        Columns that identify a series.
    by : sequence of str, default ()
        Columns of `forecasts` to group by, beside the model.

    Returns
    -------
    pandas.DataFrame
        Indexed by `by` and "model", in the order of their first row, with the columns

        - "MAE", "RMSE": of the prediction, in the unit of the target;
        - "MASE": mean of the absolute error divided by its scale;
        - "pinball": mean of :math:`\max(q (y - \hat y_q), (q - 1)(y - \hat y_q))` over steps and
          quantiles;
        - "coverage": share of actual values within the widest symmetric interval, bounds included;
        - "nominal": the share that this interval should hold, such as 0.8;
        - "values": number of actual values that were compared with a prediction;
        - "no forecast": number of actual values for which the model gave no prediction.

        Errors are over the rows with an actual value and a prediction. They are NaN if there are
        none, or if `forecasts` lacks what they need.

    Examples
    --------
    >>> forecasts = pd.DataFrame({
    ...     "model": ["m", "m", "naive", "naive"], "cutoff": 9, "step": [1, 2, 1, 2],
    ...     "actual": [3.0, 5.0, 3.0, 5.0], "prediction": [3.0, 4.0, 2.0, 2.0],
    ... })
    >>> error_table(forecasts, pd.DataFrame({"cutoff": [9], "scale": [2.0]}))[["MAE", "MASE"]]
           MAE  MASE
    model
    m      0.5  0.25
    naive  2.0  1.00
    """
    errors = _row_errors(forecasts, scales, list(series))
    keys = [forecasts[name].reset_index(drop=True) for name in (*by, "model")]
    groups = errors.groupby(keys, sort=False, observed=True, dropna=False)
    means, sums = groups.mean(), groups.sum()  # both skip NaN
    intervals = symmetric_intervals(forecasts)
    return pd.DataFrame(
        {
            "MAE": means["absolute"],
            "RMSE": np.sqrt(means["squared"]),
            "MASE": means["scaled"],
            "pinball": means["pinball"],
            "coverage": means["inside"],
            "nominal": intervals[0][2] if intervals else np.nan,
            "values": sums["compared"].astype("int64"),
            "no forecast": sums["missing"].astype("int64"),
        }
    )


def _row_errors(
    forecasts: pd.DataFrame, scales: pd.DataFrame | None, series: list[str]
) -> pd.DataFrame:
    """Compute the errors of each row: NaN without an actual value, or without a forecast."""
    actual, prediction = (_numbers(forecasts[name]) for name in ("actual", "prediction"))
    error = actual - prediction
    nothing = np.full(len(forecasts), np.nan)
    levels, intervals = quantile_columns(forecasts), symmetric_intervals(forecasts)
    quantile_errors = {name: actual - _numbers(forecasts[name]) for name in levels}
    pinball = [quantile_loss(quantile_errors[name], level) for name, level in levels.items()]
    inside = nothing
    if intervals:
        low, high = (quantile_errors[name] for name in intervals[0][:2])
        inside = np.where(np.isnan(low) | np.isnan(high), np.nan, (low >= 0) & (high <= 0))
    scale = nothing
    if scales is not None:
        keys = [*series, "cutoff"]
        scale = forecasts[keys].merge(scales, "left", on=keys, validate="many_to_one")["scale"]
    return pd.DataFrame(
        {
            "absolute": np.abs(error),
            "squared": error**2,
            "scaled": np.abs(error) / _numbers(scale),
            "pinball": np.mean(pinball, axis=0) if pinball else nothing,
            "inside": inside,
            "compared": ~np.isnan(error),
            "missing": ~np.isnan(actual) & np.isnan(prediction),
        }
    )


def _numbers(values: Any) -> np.ndarray:
    return pd.Series(values).to_numpy("float64", na_value=np.nan)
