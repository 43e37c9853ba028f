"""The length of the history: the candidates, of which validation chooses one."""

from __future__ import annotations

import math

from ..errors import Argument, InputError
from ..panel.panel import Panel
from .splits import Split

_MAX_HISTORY = 1440
_LADDER = 3.5  # from one candidate to the next
_REACH = 8  # the longest candidate, in lengths of the shortest, unless seasons are longer
_CHEAP = 120  # steps, which are quick to train with
_NOT_WORTH_A_TRIAL = 1.5  # times the candidate before
_CLEARLY_BETTER = 0.99  # a longer history must win by this


def candidate_histories(panel: Panel, split: Split) -> list[int]:
    """List lengths to try, shortest first.

    The shortest covers two of the shortest season, or two horizons. Each one is 3.5 times as long
    as the one before, up to the longest, which covers two of the longest season, three horizons and
    120 steps, but no more than eight times the shortest, as far as the series allow.
    """
    horizon, longest = split.horizon, min(split.longest_history, _MAX_HISTORY)
    seasons = [s for s in panel.axis.seasons.values() if 2 * s <= longest]
    low = min(max(2 * min(seasons, default=4), min(2 * horizon, 96)), longest)
    high = min(max(2 * max(seasons, default=1), 3 * horizon, min(_REACH * low, _CHEAP)), longest)
    candidates = [low]
    while candidates[-1] * _LADDER <= high:
        candidates.append(round(candidates[-1] * _LADDER))
    if worth_a_trial(candidates[-1], high):
        candidates.append(high)
    return candidates


def worth_a_trial(length: int, longer: int) -> bool:
    """Whether a length differs enough from a longer one to train with both."""
    return length * _NOT_WORTH_A_TRIAL < longer


def check_history(history: int, split: Split) -> None:
    """Raise an InputError if a given history is longer than the series."""
    longest = split.longest_history
    if history > longest:
        raise InputError(
            Argument("history"),
            f" {history} is longer than the {longest} steps that the longest series has before "
            f"its training targets: choose at most {longest}",
        )


def choose_history(losses: dict[int, float]) -> int:
    """Return the history with the lowest validation loss; among nearly equal ones, the shortest.

    Losses that are not finite lose.

    >>> choose_history({48: 1.0, 168: 0.995, 336: 0.97})
    336
    >>> choose_history({48: 1.0, 168: 0.995, 336: 1.2})
    48
    """
    finite = {steps: loss for steps, loss in losses.items() if math.isfinite(loss)}
    best = min(finite.values(), default=0.0)
    return min(
        (n for n, loss in finite.items() if loss * _CLEARLY_BETTER <= best), default=min(losses)
    )
