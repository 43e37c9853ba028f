"""Find rows that look like faults in the series of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .suspicion_rules import (
    MIN_OBSERVATIONS,
    Part,
    find_constant_stretch,
    find_outliers,
    find_unit_change,
)

Kind = Literal["outlier", "unit change", "constant stretch"]


@dataclass(frozen=True)
class Suspicion:
    """Rows of one series that look like a fault.

    Attributes
    ----------
    series
        Number of the series.
    kind
        "outlier", "unit change" or "constant stretch".
    rows
        The rows, counted from 0 in the series, in order.
    values
        Of outliers, their values; of a constant stretch, its value; of a unit change, the factor
        by which the rows are larger than the rest: a power of ten, below 1 if they are smaller.
    rest
        The smallest and the largest value of the other rows.
    """

    series: int
    kind: Kind
    rows: Sequence[int]
    values: tuple[float, ...]
    rest: tuple[float, float]

    @property
    def first(self) -> int:
        """The first row."""
        return self.rows[0]

    @property
    def last(self) -> int:
        """The last row."""
        return self.rows[-1]


def find_suspicious(values: Sequence[np.ndarray], horizon: int, season: int) -> list[Suspicion]:
    """Find rows that look like faults.

    These are outliers, far outside of the range of the rest of their series; a part of a series
    that is 10, 100, 1000, ... times as large or small as the rest; and a stretch of equal values in
    a series that changes otherwise. `suspicion_rules` holds the thresholds.

    Parameters
    ----------
    values : sequence of numpy.ndarray
        (N_s,) of each series, in the order of time, with NaN where a step is missing.
    horizon, season : int
        Steps to forecast, and steps of a season; 1 if there is none.

    Returns
    -------
    list of Suspicion
        In the order of series, at most one of each kind per series.

    Examples
    --------
    >>> series = np.random.default_rng(0).normal(100, 10, 60)
    >>> series[50] = 1e9
    >>> [suspicion] = find_suspicious([series], horizon=7, season=7)
    >>> suspicion.kind, suspicion.rows, suspicion.values
    ('outlier', (50,), (1000000000.0,))
    """
    found = []
    for number, series in enumerate(values):
        rows = np.flatnonzero(np.isfinite(series))
        if len(rows) < MIN_OBSERVATIONS:
            continue
        observed = np.asarray(series, dtype=float)[rows]
        outlier = find_outliers(observed)
        if outlier.any():
            found.append(
                Suspicion(
                    number,
                    "outlier",
                    tuple(rows[outlier].tolist()),
                    tuple(observed[outlier].tolist()),
                    _range(observed[~outlier]),
                )
            )
            rows, observed = rows[~outlier], observed[~outlier]
        parts: list[tuple[Kind, Part | None]] = [
            ("unit change", find_unit_change(observed, season)),
            ("constant stretch", find_constant_stretch(observed, horizon, season)),
        ]
        for kind, part in parts:
            if part is not None:
                stretch = range(int(rows[part.start]), int(rows[part.stop - 1]) + 1)
                rest = np.append(observed[: part.start], observed[part.stop :])
                found.append(Suspicion(number, kind, stretch, (part.value,), _range(rest)))
    return found


def is_outlier(suspicions: Sequence[Suspicion], lengths: Sequence[int]) -> list[np.ndarray]:
    """Mark the outliers among the rows of each series.

    Parameters
    ----------
    suspicions : sequence of Suspicion
        What `find_suspicious` returned.
    lengths : sequence of int
        Rows of each series.

    Returns
    -------
    list of numpy.ndarray
        (N_s,) of bool for each series. Only outliers are marked: other suspicious rows may be true.

    Examples
    --------
    >>> found = [Suspicion(0, "outlier", (1,), (1e9,), (3.0, 9.0))]
    >>> [mask.tolist() for mask in is_outlier(found, [3, 1])]
    [[False, True, False], [False]]
    """
    masks = [np.zeros(length, dtype=bool) for length in lengths]
    for suspicion in suspicions:
        if suspicion.kind == "outlier":
            masks[suspicion.series][list(suspicion.rows)] = True
    return masks


def _range(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())
