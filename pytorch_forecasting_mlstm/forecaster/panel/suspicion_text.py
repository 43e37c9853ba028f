"""Words for rows that look like faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from ..._messages import printable
from .suspicious import Kind, Suspicion

_MAX_NAMED = 5
#: In the order of their harm to a forecast, with what to do about them.
_CURES: dict[Kind, str] = {
    "outlier": "outliers count as missing: correct them",
    "unit change": "convert all values to one unit",
    "constant stretch": "leave rows empty in which nothing was measured",
}


def describe(suspicion: Suspicion, label: str, times: Sequence[object]) -> str:
    """Say what is suspicious.

    Parameters
    ----------
    suspicion : Suspicion
        One of `find_suspicious`.
    label : str
        Name of the series.
    times : sequence
        Times of the rows of the series.

    Examples
    --------
    >>> days = pd.date_range("2024-01-01", periods=60)
    >>> describe(Suspicion(0, "outlier", (50,), (1e9,), (80.0, 120.0)), "store=7", days)
    'store=7: 1e+09 at 2024-02-20 is far from all other values, 80 to 120'
    >>> describe(Suspicion(0, "unit change", range(40, 60), (0.001,), (80.0, 95.0)), "data", days)
    'data: values from 2024-02-10 on are about 1/1000 times as large as before'
    """
    first, last = (_format_time(times[row]) for row in (suspicion.first, suspicion.last))
    values, rest = suspicion.values, suspicion.rest
    if suspicion.kind == "outlier":
        low, high = map(_format_number, rest)
        others = f"{low} to {high}" if low != high else low
        number = _format_number(max(values, key=lambda value: abs(value - rest[0])))
        if len(values) == 1:
            return f"{label}: {number} at {first} is far from all other values, {others}"
        return (
            f"{label}: {len(values)} values such as {number} from {first} to {last} are far from "
            f"all others, {others}"
        )
    if suspicion.kind == "constant stretch":
        return (
            f"{label}: {_format_number(values[0])} in all {len(suspicion.rows)} rows from {first} "
            f"to {last}, while other values change"
        )
    factor = f"{values[0]:.0f}" if values[0] > 1 else f"1/{1 / values[0]:.0f}"
    if suspicion.last == len(times) - 1:
        return f"{label}: values from {first} on are about {factor} times as large as before"
    return f"{label}: values from {first} to {last} are about {factor} times as large as all others"


def summarize(
    suspicions: Sequence[Suspicion],
    label: Callable[[int], str],
    times: Callable[[int], Sequence[object]],
    *,
    masked: bool = True,
) -> str:
    """Describe up to five suspicions, count the others, and say what to do.

    Parameters
    ----------
    suspicions : sequence of Suspicion
        At least one.
    label, times : callable
        Return the name, and the times of the rows, of a series, given its number.
    masked : bool, default True
        Whether outliers are hidden from the model.

    Examples
    --------
    >>> found = [Suspicion(0, "outlier", (1,), (1e9,), (3.0, 9.0))]
    >>> summarize(found, "store={}".format, lambda series: range(3))  # doctest: +ELLIPSIS
    'store=0: 1e+09 at 1 is far from all other values, 3 to 9; outliers count as missing: ...'
    """
    kinds = list(_CURES)
    ordered = sorted(suspicions, key=lambda suspicion: kinds.index(suspicion.kind))
    named = ordered[:_MAX_NAMED]
    parts = [describe(one, label(one.series), times(one.series)) for one in named]
    if len(ordered) > _MAX_NAMED:
        parts.append(f"and {len(ordered) - _MAX_NAMED} more")
    present = {suspicion.kind for suspicion in suspicions}
    cures = dict(_CURES) if masked else {**_CURES, "outlier": "correct outliers"}
    return "; ".join(parts + [cure for kind, cure in cures.items() if kind in present])


def _format_number(value: float) -> str:
    return f"{value:.6g}"


def _format_time(time: object) -> str:
    if isinstance(time, pd.Timestamp | np.datetime64):
        return str(pd.Timestamp(time)).removesuffix(" 00:00:00")
    return printable(time)
