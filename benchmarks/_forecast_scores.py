"""Scores of forecasts from several cutoffs, as GIFT-Eval defines them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

LEVELS = tuple(round(0.1 * k, 1) for k in range(1, 10))


class Score(NamedTuple):
    """Errors of one model on one table."""

    mase: float
    mae: float
    crps: float
    coverage: float
    values: int


def match_truth(
    forecasts: pd.DataFrame,
    table: pd.DataFrame,
    *,
    time: str,
    target: str,
    series: Sequence[str],
    season: int,
) -> pd.DataFrame:
    """Put the truth, and the scale of MASE, beside every forecast.

    Parameters
    ----------
    forecasts, table, time, target, series, season
        As for `score_forecasts`.

    Returns
    -------
    pandas.DataFrame
        The forecasts with the columns "truth" and "scale", the mean change over a season before
        the cutoff.

    Raises
    ------
    ValueError
        If a forecast is missing, or has no truth beside it.
    """
    keys = list(series)
    truth = table[[*keys, time, target]].rename(columns={target: "truth"})
    rows = forecasts.merge(truth, on=[*keys, time], how="left", validate="many_to_one")
    columns = ["truth", "prediction", *(f"q{level:g}" for level in LEVELS)]
    missing = ~np.isfinite(rows[columns].to_numpy(dtype=float)).all(axis=1)
    if missing.any():
        raise ValueError(
            "match_truth: every row needs a forecast, and a truth in the table; "
            f"{np.count_nonzero(missing)} of {len(rows)} rows have none"
        )
    past = {}
    for key, one in table.groupby(keys) if keys else [((), table)]:
        past[key] = one[time].to_numpy(), one[target].to_numpy(dtype=float)
    windows = rows[[*keys, "cutoff"]].drop_duplicates()
    scales = []
    for *key, cutoff in windows.itertuples(index=False):
        times, values = past[tuple(key)]
        known = values[times <= np.datetime64(cutoff)]
        scales.append(np.abs(known[season:] - known[:-season]).mean())
    return rows.merge(windows.assign(scale=scales), on=[*keys, "cutoff"])


def score_forecasts(
    forecasts: pd.DataFrame,
    table: pd.DataFrame,
    *,
    time: str,
    target: str,
    series: Sequence[str],
    season: int,
) -> Score:
    """Compute MASE and CRPS as GIFT-Eval does, MAE, and the coverage of the 80 % interval.

    Parameters
    ----------
    forecasts : pandas.DataFrame
        One row per series, cutoff (the last time that is known) and step, with the columns of the
        series, `time`, "cutoff", "prediction" and a quantile for each of `LEVELS`, such as "q0.1".
    table : pandas.DataFrame
        The truth, at the forecast times and before. All models are compared with it, whatever they
        take for an outlier.
    time, target, series : str, sequence of str
        Columns of the table.
    season : int
        MASE divides by the mean change over so many steps, before the cutoff.

    Returns
    -------
    Score
        MASE is the mean over series and cutoffs without those whose past repeats exactly, which
        have no scale.

    Raises
    ------
    ValueError
        If a forecast is missing, or has no truth beside it.
    """
    rows = match_truth(forecasts, table, time=time, target=target, series=series, season=season)
    quantiles = rows[[f"q{level:g}" for level in LEVELS]].to_numpy()
    actual = rows["truth"].to_numpy()
    errors = np.abs(actual - rows["prediction"].to_numpy())
    windows = rows.assign(error=errors).groupby([*series, "cutoff"])
    means = windows.agg({"error": "mean", "scale": "first"})
    inside = (rows["q0.1"] <= actual) & (actual <= rows["q0.9"])
    return Score(
        mase=float((means["error"] / means["scale"].where(means["scale"] > 0)).mean()),
        mae=float(errors.mean()),
        crps=weighted_quantile_loss(actual, quantiles),
        coverage=float(inside.mean()),
        values=len(actual),
    )


def weighted_quantile_loss(actual: np.ndarray, quantiles: np.ndarray) -> float:
    """Return the quantile loss as a share of the truth's size, the mean over `LEVELS`.

    Parameters
    ----------
    actual : numpy.ndarray of shape (values,)
        The truth.
    quantiles : numpy.ndarray of shape (values, levels)
        A forecast for each of `LEVELS`.
    """
    losses = [
        2 * np.abs(actual - forecast) * np.abs((actual <= forecast) - level)
        for level, forecast in zip(LEVELS, quantiles.T, strict=True)
    ]
    return float(np.mean([loss.sum() for loss in losses]) / np.abs(actual).sum())


def report(rows: list[dict[str, Any]], output: Path | None) -> None:
    """Print the last of the results, and write all of them, so that a long run can be stopped."""
    last = {k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()}
    print(last, flush=True)
    if output:
        pd.DataFrame(rows).to_csv(output, index=False)
