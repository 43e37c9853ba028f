"""Histories with missing values (NaN): what a forecast needs of them."""

import warnings

import numpy as np

from ...._messages import and_more, format_series
from ....data.rows import Rows, to_array
from .schema import Schema

__all__ = ["check_observed"]


def check_observed(schema: Schema, rows: Rows, names: list[tuple]) -> None:
    """Raise if too little of a target is observed to forecast it; warn if its end is missing.

    A table that ends in as many rows without a target as the horizon has steps is taken for one
    with the rows to forecast.

    Parameters
    ----------
    schema : Schema
        Roles of the columns.
    rows : Rows
        Rows that are read.
    names : list of tuple
        Name of each series.

    Raises
    ------
    ValueError
        If so.
    """
    targets = [name for name in schema.targets if name in schema.reals]
    observed = {name: ~np.isnan(to_array(rows.columns[name]).astype(float)) for name in targets}
    if not targets or all(values.all() for values in observed.values()):
        return
    times, series = rows.times, rows.series
    end = np.full(len(names), times.min())
    np.maximum.at(end, series, times)
    in_window = times > end[series] - schema.max_history
    for name, values in observed.items():
        count = np.bincount(series[values & in_window], minlength=len(names))
        if schema.min_history > 0 and not count.all():
            first = int(count.argmin())
            raise ValueError(
                f"{schema.caller}: every series must have a value of target {name!r} in its last "
                f"{schema.max_history} steps, got none for "
                f"{format_series(schema.groups, names[first])}"
                f"{and_more(int((count == 0).sum()) - 1)}; fill some in, drop rows that are to "
                f"be forecast, or train with min_encoder_length=0."
            )
    if len(targets) == len(schema.targets):
        _check_end(schema, times, end, series, names, np.any(list(observed.values()), axis=0))


def _check_end(
    schema: Schema,
    times: np.ndarray,
    end: np.ndarray,
    series: np.ndarray,
    names: list[tuple],
    observed: np.ndarray,
) -> None:
    last = np.full(len(names), times.min() - 1)
    np.maximum.at(last, series[observed], times[observed])
    missing = np.where(last < times.min(), 0, end - last)  # histories without any value are empty
    if not missing.any():
        return
    first = int(missing.argmax())
    subject = f"{format_series(schema.groups, names[first])}"
    others = and_more(int((missing > 0).sum()) - 1)
    if missing[first] >= schema.horizon:
        raise ValueError(
            f"{schema.caller}: data must hold the history only, got no target in the last "
            f"{missing[first]} steps of {subject}{others}, as many as the horizon has or more; "
            f"drop these rows, and pass what is known of them as future."
        )
    warnings.warn(
        f"{schema.caller}: data have no target in the last {missing[first]} steps of {subject}"
        f"{others}; forecasts begin after these steps: drop rows that are to be forecast.",
        UserWarning,
        stacklevel=2,
    )
