"""Infer the spacing of times, or report which times do not fit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries import offsets

from ..errors import Argument, InputError, quoted
from .frequency_arguments import read_frequency, read_holidays
from .step_inference import infer_step
from .steps import PER_DAY, fixed_width, slots_per_day
from .time_axis import TimeAxis, as_integers

_MAX_STEPS_PER_ROW = 20  # with more, the times have no common step
_SPARSE = 10  # steps per row from which on a warning names the spacing


def infer_frequency(
    times: pd.Series,
    series: np.ndarray,
    label: Callable[[int], str],
    *,
    frequency: Any = None,
    holidays: Any = None,
) -> tuple[TimeAxis, np.ndarray]:
    """Infer the spacing of `times`, and their positions along it, which may have gaps.

    Daily times are business days if none is on a weekend, over two weeks or more.

    Parameters
    ----------
    times : pandas.Series
        Integers or timestamps without a zone, sorted within each series and without duplicates.
    series : numpy.ndarray
        Number of the series that each time belongs to, sorted.
    label : callable
        Function that names a series in messages.
    frequency : str, int, timedelta or pandas.DateOffset, optional
        The spacing, such as "B", "W-SUN" or "15min"; a number for integers. Default: inferred.
    holidays : str or iterable, optional
        Days without times: dates, or the code of a country or stock exchange, as in
        `read_holidays`.

    Returns
    -------
    TimeAxis
        The evenly spaced times.
    numpy.ndarray
        (rows,) int64 positions on it.

    Raises
    ------
    InputError
        If there is no common spacing, or a time does not fit it.

    Examples
    --------
    >>> days = pd.Series(pd.to_datetime(["2024-03-01", "2024-03-04", "2024-03-18"]))
    >>> axis, positions = infer_frequency(days, np.zeros(3, dtype=int), str, frequency="B")
    >>> axis.name, positions.tolist()
    ('business days', [0, 1, 11])
    """
    is_integer = times.dtype.kind == "i"
    week: str | None = None
    days_off: tuple[str, ...] = ()
    steps = _distances(times, series)
    if frequency is not None:
        step, week, days_off = read_frequency(frequency, is_integer)
    elif len(steps):
        step = infer_step(times, series, steps)
    else:
        hint = (": does ", Argument("group"), " name too many columns?")
        raise InputError(
            f"{label(0)}: a single row is too short to forecast from",
            *(hint if series[-1] else (": add rows",)),
        )
    if holidays is not None:
        days_off = _read_days_off(holidays, days_off, times, series, step, label)
    axis, positions = _positions_along(times, step, days_off, week)
    if (positions < 0).any():
        _raise_off_axis(axis, times, series, positions < 0, label, frequency)
    _check_number_of_steps(axis, times, series, positions, steps, frequency)
    return axis, positions


def _distances(times: pd.Series, series: np.ndarray) -> np.ndarray:
    """Return the distances of consecutive times of one series, in the unit of the times."""
    integers = as_integers(times, "us" if times.dtype.kind == "i" else times.dt.unit)
    # Unsigned differences cannot overflow, even from one end of 64 bits to the other.
    return np.diff(integers.view(np.uint64))[series[1:] == series[:-1]]


def _read_days_off(
    holidays: Any,
    days_off: tuple[str, ...],
    times: pd.Series,
    series: np.ndarray,
    step: Any,
    label: Callable[[int], str],
) -> tuple[str, ...]:
    """Read holidays, and check that no row is on one of them."""
    try:
        if isinstance(step, int):
            raise ValueError
        slots_per_day(step)
    except ValueError as error:
        spacing = TimeAxis(0 if isinstance(step, int) else times.min(), step).name
        raise InputError(
            Argument("holidays"),
            f" need times that are days or parts of days; the spacing is {spacing}: leave out ",
            Argument("holidays"),
        ) from error
    days_off = tuple(sorted({*days_off, *read_holidays(holidays, times)}))
    dates = times.to_numpy().astype("datetime64[D]")
    on_holiday = np.isin(dates, np.array(days_off, dtype="datetime64[D]"))
    if on_holiday.any():
        first = on_holiday.nonzero()[0][0]
        more = f"; {on_holiday.sum()} such rows" if on_holiday.sum() > 1 else ""
        raise InputError(
            f"{label(series[first])}: {times.iloc[first]} is on one of the ",
            Argument("holidays"),
            f", which have no rows{more}: remove such rows, or take these days from the ",
            Argument("holidays"),
        )
    return days_off


def _positions_along(
    times: pd.Series, step: Any, holidays: tuple[str, ...], week: str | None
) -> tuple[TimeAxis, np.ndarray]:
    """Count `times` along an axis of the given step, from the first time that lies on it."""
    try:
        axis = TimeAxis(_start(times, step, holidays, week), step, holidays, week)
        return axis, axis.positions(times)
    except (OverflowError, pd.errors.OutOfBoundsDatetime) as error:
        raise InputError(
            "the times are too far apart to be counted: forecast the series in separate tables"
        ) from error


def _start(times: pd.Series, step: Any, holidays: tuple[str, ...], week: str | None) -> Any:
    """Return the first time on the axis."""
    if type(step) is pd.DateOffset:
        return times[times.dt.day == times.dt.day.mode()[0]].min()
    unit = "us" if isinstance(step, int) else times.dt.unit
    width = fixed_width(step, unit)
    if week is not None or (holidays and width is not None):
        weekmask = week or "1111111"
        calendar = np.busdaycalendar(weekmask, np.array(holidays, dtype="datetime64[D]"))
        is_open = np.is_busday(times.to_numpy().astype("datetime64[D]"), busdaycal=calendar)
        return times[is_open].min() if is_open.any() else times.min()
    if width is None or isinstance(step, offsets.Week):
        return step.rollforward(times.min())
    # A few times may not fit: most do.
    values = as_integers(times, unit)
    distances = values.view(np.uint64) - values.min(keepdims=True).view(np.uint64)
    remainders = distances % np.uint64(width)
    common, counts = np.unique(remainders, return_counts=True)
    start = times[remainders == common[counts.argmax()]].min()
    return int(start) if isinstance(step, int) else start


def _raise_off_axis(
    axis: TimeAxis,
    times: pd.Series,
    series: np.ndarray,
    off_axis: np.ndarray,
    label: Callable[[int], str],
    frequency: Any,
) -> None:
    first = off_axis.nonzero()[0][0]
    found = f"{label(series[first])}: {times.iloc[first]} does not fit "
    count = f"; {off_axis.sum()} such rows: "
    if frequency is not None:
        raise InputError(
            found,
            Argument("frequency"),
            f" {quoted(getattr(frequency, 'freqstr', frequency))} ({axis.name}, from {axis.start})"
            f"{count}correct them, or leave out ",
            Argument("frequency"),
            " to have it inferred",
        )
    found += f"the spacing of the other times ({axis.name}, from {axis.start}){count}"
    if _differ_by_an_hour(axis, times[off_axis]):
        raise InputError(
            f"{found}if summer time changes the clock, give the zone of the times as ",
            Argument("timezone"),
            ', such as "Europe/Berlin"',
        )
    raise InputError(
        f"{found}correct them, bring all times to one spacing, or name a finer ",
        Argument("frequency"),
    )


def _differ_by_an_hour(axis: TimeAxis, times: pd.Series) -> bool:
    """Whether times are an hour from days, as days of local time are in UTC."""
    day = PER_DAY[axis.unit]
    if axis.is_integer or axis.spacing % day:
        return False
    start = axis.start.to_datetime64().astype(f"datetime64[{axis.unit}]").astype(np.int64)
    distance = (as_integers(times, axis.unit) - start) % day
    return bool(np.isin(distance, (day // 24, day - day // 24)).all())


def _check_number_of_steps(
    axis: TimeAxis,
    times: pd.Series,
    series: np.ndarray,
    positions: np.ndarray,
    steps: np.ndarray,
    frequency: Any,
) -> None:
    """Reject an axis that would have hardly any rows."""
    total = sum(map(int, np.diff(positions)[series[1:] == series[:-1]]))
    if total > _MAX_STEPS_PER_ROW * len(times) + 1000:
        lengths, counts = np.unique(steps, return_counts=True)
        common = _format_length(lengths[counts.argmax()], times)
        if frequency is not None:
            raise InputError(
                Argument("frequency"),
                f" {quoted(getattr(frequency, 'freqstr', frequency))} makes {total:,} steps of "
                f"{len(times):,} rows, most often {common} apart: choose a longer one, or leave it "
                "out to have it inferred",
            )
        raise InputError(
            f"the times have no common step (most often {common}, over {total:,.0f} steps "
            f"for {len(times):,} rows): aggregate them to hours, days or months first"
        )
    if frequency is None and total > _SPARSE * len(times):
        warnings.warn(
            f"the times fit a spacing of {axis.name} only, with rows for {len(times):,} of "
            f"{total:,} steps: aggregate them, or set `frequency` to confirm it",
            stacklevel=3,
        )


def _format_length(length: Any, times: pd.Series) -> str:
    if times.dtype.kind == "i":
        return f"{length}"
    return str(pd.Timedelta(np.timedelta64(int(length), times.dt.unit)))
