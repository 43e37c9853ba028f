"""Split a panel by time into training, validation and test parts.

Each series is split relative to its own end. Positions are therefore counted such that all series
end at the same position, even if they end at different times. ``Split.end`` is the position after
the last observed step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import Argument, InputError
from .panel import Panel

_MAX_WINDOWS = 1000  # per held-out part; more take time and hardly change the result
_MAX_HISTORY = 1440
_TEST_SHARE = 0.1  # of the shortest series, for validation and for test each


@dataclass(frozen=True)
class Split:
    """Where the parts begin, and the length of the windows.

    Training uses the targets before `validation`, validation those from there up to `test`, and the
    test those from there up to `end`. Histories may extend back across these borders, as they do in
    practice; targets never do.
    """

    horizon: int
    history: int
    min_history: int
    validation: int
    test: int
    end: int
    n_series: int

    def origins(self, begin: int, end: int) -> np.ndarray:
        """First steps of the forecasts in a held-out part; the latest possible is included."""
        possible = end - begin - self.horizon + 1
        stride = max(1, -(-possible * self.n_series // _MAX_WINDOWS))
        return np.arange(end - self.horizon, begin - 1, -stride)[::-1]

    @property
    def validation_origins(self) -> np.ndarray:
        """First steps of the forecasts that select the epoch."""
        return self.origins(self.validation, self.test)

    @property
    def test_origins(self) -> np.ndarray:
        """First steps of the forecasts that are reported."""
        return self.origins(self.test, self.end)

    @property
    def held_out(self) -> int:
        """Steps of validation and test together."""
        return self.end - self.validation

    def training_values(self, panel: Panel) -> list[np.ndarray]:
        """Return the values of each series before its held-out parts."""
        return [values[: len(values) - self.held_out] for values in panel.values]


def split_panel(
    panel: Panel, horizon: int, history: int | None = None, test_size: int | None = None
) -> Split:
    """Choose the parts and the length of the history.

    Parameters
    ----------
    panel : Panel
        The series.
    horizon : int
        Steps to forecast.
    history : int, optional
        Steps that the model looks back. Default: two of the longest season or three horizons,
        whichever is more, as far as the longest series allows.
    test_size : int, optional
        Steps of the validation part, and of the test part. Default: a tenth of the shortest
        series, and at least one horizon.

    Raises
    ------
    InputError
        If a series is too short, or the history is too long.
    """
    lengths = panel.lengths
    shortest, end = int(lengths.min()), int(lengths.max())
    if shortest < min_rows(horizon):
        _raise_too_short(panel, horizon)
    if test_size is None:
        test_size = max(horizon, int(_TEST_SHARE * shortest))
    test = end - test_size
    validation = test - test_size
    longest = validation - horizon  # leaves one window of targets in the longest series
    if history is None:
        fitting = [steps for steps in panel.axis.seasons.values() if 2 * steps <= longest]
        season = max(fitting, default=1)
        history = min(max(2 * season, 3 * horizon), _MAX_HISTORY)
    elif history > longest:
        raise InputError(
            Argument("history"),
            f" {history} is longer than the {longest} steps that the longest series has before its "
            f"training targets: choose at most {longest}",
        )
    history = min(history, longest)
    # Use windows of one length if every series has plenty of them, else also shorter histories.
    plenty = shortest - 2 * test_size >= history + 3 * horizon
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
    """Rows a series needs: a short history, and a horizon each for training, validation, test."""
    return _shortest_history(horizon) + 3 * horizon


def _shortest_history(horizon: int) -> int:
    return max(2, horizon // 2)


def _raise_too_short(panel: Panel, horizon: int) -> None:
    lengths, required = panel.lengths, min_rows(horizon)
    short = np.flatnonzero(lengths < required)
    shortest = short[lengths[short].argmin()]
    count = f" ({len(short)} of {len(lengths)} series are too short)" if len(short) > 1 else ""
    smaller = range(1, min(horizon, int(lengths.min())))
    possible = max((h for h in smaller if min_rows(h) <= lengths.min()), default=0)
    hint = ("choose ", Argument("horizon"), f" {possible} or less") if possible else ("add rows",)
    raise InputError(
        f"{panel.label(int(shortest))}: {lengths[shortest]} rows are too short for ",
        Argument("horizon"),
        f" {horizon}, which needs {required}{count}: ",
        *hint,
        ", or drop such series" if len(short) < len(lengths) else "",
    )
