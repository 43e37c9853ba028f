"""Patterns of times as text: learn one from examples, and write times with it.

A pattern has the letters of ``strftime``: ``%Y %y %m %d %H %I %M %S %p %b %B %a %A %G %V %u``, and
``%q`` for quarters, ``%3f`` for fractions of a second with three digits, ``%z``, ``%:z`` and
``%:::z`` for offsets such as +0200, +02:00 and +02. A minus as in ``%-d`` leaves out leading zeros.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

_MONTHS = (
    "January February March April May June July August September October November December".split()
)
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_TOKEN = re.compile(r"%(-?[A-Za-z]|\df|:{0,3}z|%)|([^%]+)")
_RUN = re.compile(r"\d+|[A-Za-z]+|[^\dA-Za-z]+", re.ASCII)
_OFFSET = re.compile(r"[+-]\d\d(:?\d\d)?$")
_DIGITS = ["Y", "m", "d", "H", "M", "S", "y", "I"]
_COMPOSITE = ["%Y%m%d", "%Y%m", "%H%M%S", "%H%M", "%Y%m%d%H%M%S", "%Y%m%d%H%M", "%y%m%d"]
_WORDS = ["%b", "%B", "%a", "%A", "%p"]
_MAX_PATTERNS = 20_000  # to try
_SAMPLE = 50  # rows, to discard most of them


def write_pattern(pattern: str, times: pd.DatetimeIndex, offsets: np.ndarray) -> np.ndarray:
    """Write times as text.

    Parameters
    ----------
    pattern : str
        Letters as in the module's description.
    times : pandas.DatetimeIndex
        (N,) without a zone, by the clock that is written.
    offsets : numpy.ndarray
        (N,) minutes that this clock is ahead of UTC.

    Returns
    -------
    numpy.ndarray
        (N,) of text.

    Examples
    --------
    >>> times = pd.DatetimeIndex(["2024-03-05 14:30"])
    >>> write_pattern("%-d.%-m.%Y, %H:%M%:z", times, np.array([60])).tolist()
    ['5.3.2024, 14:30+01:00']
    """
    columns = []
    for token, literal in _TOKEN.findall(pattern):
        if literal or token == "%":
            columns.append([literal or "%"] * len(times))
        else:
            columns.append(_column(token, times, offsets))
    result = np.empty(len(times), dtype=object)
    result[:] = ["".join(parts) for parts in zip(*columns, strict=True)]
    return result


def learn_pattern(
    texts: Sequence[str], times: pd.DatetimeIndex, offsets: np.ndarray, first: Sequence[str] = ()
) -> str | None:
    """Find the pattern with which all `times` are written as `texts`; None if there is none.

    Parameters
    ----------
    texts : sequence of str
        (N,) not empty.
    times, offsets
        As in `write_pattern`.
    first : sequence of str
        Patterns to try first.
    """
    rows = np.unique(np.linspace(0, len(texts) - 1, _SAMPLE).astype(int))
    sample = [texts[row] for row in rows]

    def fits(pattern: str) -> bool:
        for wanted, of in ((sample, rows), (texts, slice(None))):
            if write_pattern(pattern, times[of], offsets[of]).tolist() != list(wanted):
                return False
        return True

    guesses = itertools.islice(_guesses(texts[0], times[:1], offsets[:1]), _MAX_PATTERNS)
    known = [pattern for pattern in first if "%f" not in pattern]  # which has no number of digits
    return next(filter(fits, itertools.chain(known, guesses)), None)


def _guesses(text: str, time: pd.DatetimeIndex, offset: np.ndarray) -> itertools.chain:
    """List the patterns that write one time as `text`."""
    end = _OFFSET.search(text)
    tail = [""]
    if end and ":" in text[: end.start()]:
        tail = [
            token
            for token in ("%:z", "%z", "%:::z")
            if write_pattern(token, time, offset)[0] == end[0]
        ]
        text = text[: end.start()]
    runs = _RUN.findall(text)
    options = []
    for number, run in enumerate(runs):
        before = "".join(runs[:number])[-1:]
        options.append(_options(run, before, "Q" in text.upper(), "W" in text.upper(), time))
    patterns = ("".join(parts) + end for parts in itertools.product(*options) for end in tail)
    return itertools.chain(filter(_names_each_part_once, patterns))


def _options(
    run: str, before: str, has_quarter: bool, has_week: bool, time: pd.DatetimeIndex
) -> list[str]:
    """List the tokens that write one time as this run of digits or letters."""
    if run.isdigit():
        letters = ["G", "V", "u"] if has_week else [*(["q"] if has_quarter else []), *_DIGITS]
        tokens = [f"%{letter}" for letter in letters]
        tokens += [f"%-{letter}" for letter in letters] + ([] if has_week else _COMPOSITE)
        if before in (".", ",") and len(run) <= 9:
            tokens.append(f"%{len(run)}f")
    else:
        tokens = _WORDS if run.isalpha() else []
    fitting = [token for token in tokens if write_pattern(token, time, np.zeros(1))[0] == run]
    return fitting if run.isdigit() else [*fitting, run.replace("%", "%%")]


def _names_each_part_once(pattern: str) -> bool:
    letters = [token.lstrip("-") for token, _ in _TOKEN.findall(pattern) if token not in ("", "%")]
    return len(set(letters)) == len(letters)


def _column(token: str, times: pd.DatetimeIndex, offsets: np.ndarray) -> list[str]:
    """Write one part of the times."""
    if token.endswith("f"):
        nanoseconds = times.microsecond.to_numpy() * 1000 + times.nanosecond.to_numpy()
        return [f"{value:09d}"[: int(token[0])] for value in nanoseconds]
    if token.endswith("z"):
        return _write_offsets(offsets, token)
    numbers, width = _NUMBERS[token.lstrip("-")](times), 2
    if token in _NAMES:
        return [_NAMES[token][number] for number in numbers]
    if token.lstrip("-") in "YG":
        width = 4
    elif token in ("q", "u") or token.startswith("-"):
        width = 1
    unique, inverse = np.unique(np.asarray(numbers), return_inverse=True)
    return np.array([f"{number:0{width}d}" for number in unique], dtype=object)[inverse].tolist()


def _write_offsets(offsets: np.ndarray, token: str) -> list[str]:
    separator, short = (":" if ":" in token else ""), token == ":::z"
    texts = {}
    for offset in np.unique(offsets).astype(int):
        hours, minutes = divmod(abs(int(offset)), 60)
        text = f"{'-' if offset < 0 else '+'}{hours:02d}"
        texts[int(offset)] = text if short and not minutes else f"{text}{separator}{minutes:02d}"
    return [texts[int(offset)] for offset in offsets]


_NUMBERS: dict[str, Callable[[pd.DatetimeIndex], np.ndarray]] = {
    "Y": lambda times: times.year,
    "y": lambda times: times.year % 100,
    "m": lambda times: times.month,
    "b": lambda times: times.month - 1,
    "B": lambda times: times.month - 1,
    "d": lambda times: times.day,
    "a": lambda times: times.dayofweek,
    "A": lambda times: times.dayofweek,
    "H": lambda times: times.hour,
    "I": lambda times: (times.hour - 1) % 12 + 1,
    "p": lambda times: times.hour // 12,
    "M": lambda times: times.minute,
    "S": lambda times: times.second,
    "q": lambda times: times.quarter,
    "G": lambda times: times.isocalendar()["year"].to_numpy(int),
    "V": lambda times: times.isocalendar()["week"].to_numpy(int),
    "u": lambda times: times.dayofweek + 1,
}
_NAMES = {
    "b": [name[:3] for name in _MONTHS],
    "B": _MONTHS,
    "a": [name[:3] for name in _DAYS],
    "A": _DAYS,
    "p": ["AM", "PM"],
}
