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
    keys = list(series)
    truth = table[[*keys, time, target]].rename(columns={target: "truth"})
    rows = forecasts.merge(truth, on=[*keys, time], how="left", validate="many_to_one")
    quantiles = rows[[f"q{level:g}" for level in LEVELS]].to_numpy()
    actual = rows["truth"].to_numpy()
    errors = np.abs(actual - rows["prediction"].to_numpy())
    if not (np.isfinite(errors).all() and np.isfinite(quantiles).all()):
        raise ValueError(
            "score_forecasts: every row needs a forecast, and a truth in the table; "
            f"{np.count_nonzero(~np.isfinite(errors))} of {len(errors)} rows have none"
        )
    windows = rows.assign(error=errors).groupby([*keys, "cutoff"])["error"].mean()
    past = {}
    for key, one in table.groupby(keys) if keys else [((), table)]:
        past[key] = one[time].to_numpy(), one[target].to_numpy(dtype=float)
    scaled = []
    for index, error in windows.items():
        *key, cutoff = index if keys else (index,)
        times, values = past[tuple(key)]
        known = values[times <= np.datetime64(cutoff)]
        scale = np.abs(known[season:] - known[:-season]).mean()
        scaled.append(error / scale if scale > 0 else np.nan)
    losses = [
        2 * np.abs(actual - forecast) * np.abs((actual <= forecast) - level)
        for level, forecast in zip(LEVELS, quantiles.T, strict=True)
    ]
    inside = (rows["q0.1"] <= actual) & (actual <= rows["q0.9"])
    return Score(
        mase=float(np.nanmean(scaled)),
        mae=float(errors.mean()),
        crps=float(np.mean([loss.sum() for loss in losses]) / np.abs(actual).sum()),
        coverage=float(inside.mean()),
        values=len(actual),
    )


def report(rows: list[dict[str, Any]], output: Path | None) -> None:
    """Print the last of the results, and write all of them, so that a long run can be stopped."""
    last = {k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()}
    print(last, flush=True)
    if output:
        pd.DataFrame(rows).to_csv(output, index=False)
