"""Cut the table by time: train, then validation, then test.

All positions here are counted so that every series ends at the same one, whenever it ends in time:
each is then split at its own end. ``split.end`` is one beyond the last observed step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import UserError
from .panel import Table

_MOST_WINDOWS = 1000  # per held-out part: more cost time and say little more
_LONGEST_HISTORY = 1440
_HELD_OUT = 0.1  # of the shortest series, for validation and for test each; one horizon at least


@dataclass(frozen=True)
class Split:
    """Where the parts begin, and the windows in them.

    Training sees targets before `validation`, validation those from there to before `test`, and
    the test those from there to before `end`. History reaches back across these borders, as it
    does in practice; targets never do.
    """

    horizon: int
    history: int
    min_history: int
    validation: int
    test: int
    end: int
    n_series: int

    def origins(self, begin: int, end: int) -> np.ndarray:
        """First steps of the forecasts in a held-out part, the latest of them always included."""
        possible = end - begin - self.horizon + 1
        stride = max(1, -(-possible * self.n_series // _MOST_WINDOWS))
        return np.arange(end - self.horizon, begin - 1, -stride)[::-1]

    @property
    def validation_origins(self) -> np.ndarray:
        """First steps of the forecasts that choose the epoch."""
        return self.origins(self.validation, self.test)

    @property
    def test_origins(self) -> np.ndarray:
        """First steps of the forecasts that are reported."""
        return self.origins(self.test, self.end)


def split_table(
    table: Table, horizon: int, history: int | None = None, held_out: int | None = None
) -> Split:
    """Choose the parts, and how far the model looks back.

    Parameters
    ----------
    table : Table
        The series.
    horizon : int
        Steps to forecast.
    history : int, optional
        Steps to look back. Default: two of the longest season or three horizons, whichever is
        more, as far as the longest series allows.
    held_out : int, optional
        Steps of the validation part, and of the test part. Default: a tenth of the shortest
        series, and at least one horizon.

    Raises
    ------
    UserError
        A series is too short.
    """
    lengths = table.lengths
    least = min_rows(horizon)
    shortest, end = int(lengths.min()), int(lengths.max())
    if shortest < least:
        _raise_too_short(table, horizon, least)
    if held_out is None:
        held_out = max(horizon, int(_HELD_OUT * shortest))
    test = end - held_out
    validation = test - held_out
    longest = validation - horizon  # leaves one target window to the longest series
    if history is None:
        fitting = [steps for steps in table.axis.seasons.values() if 2 * steps <= longest]
        season = max(fitting, default=1)
        history = min(max(2 * season, 3 * horizon), _LONGEST_HISTORY)
    elif history > longest:
        raise UserError(
            f"--history {history} is longer than the {longest} steps that the longest series has "
            f"before its training targets: choose at most {longest}"
        )
    history = min(history, longest)
    # Windows of one length where every series has plenty; else also those with less history.
    plenty = shortest - 2 * held_out >= history + 3 * horizon
    return Split(
        horizon=horizon,
        history=history,
        min_history=history if plenty else min(history, _shortest_history(horizon)),
        validation=validation,
        test=test,
        end=end,
        n_series=len(lengths),
    )


def min_rows(horizon: int) -> int:
    """Rows a series must have: a little history, and a horizon each to train, validate and test."""
    return _shortest_history(horizon) + 3 * horizon


def _shortest_history(horizon: int) -> int:
    return max(2, horizon // 2)


def _raise_too_short(table: Table, horizon: int, least: int) -> None:
    lengths = table.lengths
    short = np.flatnonzero(lengths < least)
    worst = short[lengths[short].argmin()]
    others = f" ({len(short)} of {len(lengths)} series are too short)" if len(short) > 1 else ""
    fewer = range(1, min(horizon, int(lengths.min())))
    possible = max((h for h in fewer if min_rows(h) <= lengths.min()), default=0)
    mend = f"choose --horizon {possible} or less" if possible else "add rows"
    if len(short) < len(lengths):
        mend += ", or drop such series"
    raise UserError(
        f"{table.label(int(worst))}: {lengths[worst]} rows are too short for --horizon {horizon}, "
        f"which needs {least}{others}: {mend}"
    )
