"""Fill the missing steps of a series."""

from __future__ import annotations

from difflib import get_close_matches
from numbers import Real

import numpy as np

from ..errors import Argument, InputError, quoted

_WAYS = ("mask", "previous", "interpolate")
#: What other libraries call these ways.
_SYNONYMS = {
    "ffill": "previous",
    "pad": "previous",
    "forward": "previous",
    "last": "previous",
    "locf": "previous",
    "linear": "interpolate",
    "nan": "mask",
    "none": "mask",
    "ignore": "mask",
    "zero": "0",
    "zeros": "0",
}


def check_missing(how: object) -> str | float:
    """Return "mask", "previous", "interpolate" or a finite number.

    Raises
    ------
    InputError
        For anything else.

    Examples
    --------
    >>> check_missing("previous"), check_missing(0)
    ('previous', 0.0)
    """
    if isinstance(how, str):
        if how in _WAYS:
            return how
        word = how.strip().lower()
        close = [_SYNONYMS[word]] if word in _SYNONYMS else get_close_matches(word, _WAYS, n=1)
        guess = close[0] if close else ""
        hint = f" (did you mean {guess if guess == '0' else quoted(guess)}?)" if guess else ""
        got = quoted(how) + hint
    else:
        if isinstance(how, Real | np.number) and not isinstance(how, bool | np.bool_):
            number = float(how)
            if np.isfinite(number):
                return number
        got = str(how)
    raise InputError(
        Argument("missing"),
        f" must be 'mask', 'previous', 'interpolate' or a finite number, got {got}",
    )


def fill_missing(values: np.ndarray, how: str | float) -> np.ndarray:
    """Fill the NaN of one series.

    Values before the first observation stay NaN under "previous" and "interpolate", since nothing
    is known about them; so do values after the last one under "interpolate". The model masks them.

    Parameters
    ----------
    values : numpy.ndarray
        (N,), in the order of time, with NaN where a step is missing.
    how : {"mask", "previous", "interpolate"} or float
        Leave them, repeat the last observation, draw a straight line between the observations
        before and after, or put in a number.

    Returns
    -------
    numpy.ndarray
        (N,), float64. `values` is not changed.

    Examples
    --------
    >>> gap = np.array([np.nan, 1.0, np.nan, 3.0])
    >>> fill_missing(gap, "interpolate").tolist(), fill_missing(gap, 0).tolist()
    ([nan, 1.0, 2.0, 3.0], [0.0, 1.0, 0.0, 3.0])
    """
    how = check_missing(how)
    filled = np.array(values, dtype=float)
    missing = np.isnan(filled)
    if how == "mask" or not missing.any():
        return filled
    if not isinstance(how, str):
        filled[missing] = how
        return filled
    observed = np.flatnonzero(~missing)
    steps = np.arange(len(filled))
    if how == "previous":
        last = np.searchsorted(observed, steps, side="right") - 1
        gaps = missing & (last >= 0)
        filled[gaps] = filled[observed[last[gaps]]]
    elif len(observed):
        gaps = missing & (steps > observed[0]) & (steps < observed[-1])
        filled[gaps] = np.interp(steps[gaps], observed, filled[observed])
    return filled
