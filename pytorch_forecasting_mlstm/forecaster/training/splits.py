"""Split a panel by time: a training part, and a validation part at the end of every series.

Each series is split relative to its own end. Steps are therefore counted such that all series end
at the same one, `Split.end`, even if they end at different times.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import Argument, InputError
from ..panel.panel import Panel

_MAX_WINDOWS = 1000  # in the validation part; more take time and hardly change the result
_VALIDATION_SHARE = 0.1  # of the typical series
_MIN_HISTORY = 2


@dataclass(frozen=True)
class Split:
    """Where the validation part begins, and the length of the windows.

    Training uses the targets before `validation`, validation those from there up to `end`.
    Histories may extend back across this border, as they do in practice; targets never do.
    """

    horizon: int
    history: int
    min_history: int
    validation: int
    end: int
    n_series: int

    @property
    def origins(self) -> np.ndarray:
        """First steps of the validation forecasts; the latest possible is included."""
        possible = self.end - self.validation - self.horizon + 1
        stride = max(1, -(-possible * self.n_series // _MAX_WINDOWS))
        return np.arange(self.end - self.horizon, self.validation - 1, -stride)[::-1]

    @property
    def has_validation(self) -> bool:
        """Whether there is a validation part."""
        return self.end - self.validation >= self.horizon

    def with_history(self, panel: Panel, history: int) -> Split:
        """Return the same split with windows of another length.

        Windows have one length if every series has plenty of them, else shorter ones are used, too.
        """
        history = min(history, self.longest_history)
        shortest = int(panel.lengths.min()) - (self.end - self.validation)
        plenty = shortest >= history + 3 * self.horizon
        shorter = min(history, max(_MIN_HISTORY, self.horizon // 2), max(1, shortest - 1))
        return replace(self, history=history, min_history=history if plenty else max(shorter, 1))

    @property
    def longest_history(self) -> int:
        """Longest history that leaves one window in the longest series."""
        return max(1, self.validation - self.horizon)


def split_panel(panel: Panel, horizon: int, *, validate: bool = True) -> Split:
    """Choose the validation part: a tenth of the typical series, and at least one horizon.

    Parameters
    ----------
    panel : Panel
        The series.
    horizon : int
        Steps to forecast.
    validate : bool, default True
        Whether to have a validation part. Series that are too short for it only train.

    Raises
    ------
    InputError
        If all series are too short to learn from.
    """
    lengths = panel.lengths
    end = int(lengths.max())
    required = min_rows(horizon)
    if end < required:
        _raise_too_short(panel, horizon)
    size = 0
    if validate and end >= required + horizon:
        typical = int(np.median(lengths[lengths >= required + horizon]))
        size = min(max(horizon, int(_VALIDATION_SHARE * typical)), end - required)
    split = Split(
        horizon=horizon,
        history=1,
        min_history=1,
        validation=end - size,
        end=end,
        n_series=len(lengths),
    )
    return split.with_history(panel, split.longest_history)


def min_rows(horizon: int) -> int:
    """Rows that the longest series needs: one window, and a short history before it."""
    return _MIN_HISTORY + horizon


def _raise_too_short(panel: Panel, horizon: int) -> None:
    longest = int(panel.lengths.argmax())
    length, required = int(panel.lengths[longest]), min_rows(horizon)
    possible = length - _MIN_HISTORY
    hint = (
        ("choose ", Argument("horizon"), f" {possible} or less") if possible > 0 else ("add rows",)
    )
    rows = "row is" if length == 1 else "rows are"
    raise InputError(
        f"{panel.label(longest)}: {length} {rows} too short for ",
        Argument("horizon"),
        f" {horizon}, which needs {required} in the longest series: ",
        *hint,
    )
