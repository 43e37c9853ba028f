"""The spacing of times: its name, the seasons to expect at it, and its form in a saved file."""

from __future__ import annotations

from typing import Any

import pandas as pd
from pandas.tseries import frequencies, offsets

from .steps import PER_DAY, slots_per_day


def describe(
    step: Any, spacing: int, unit: str, week: str, has_holidays: bool
) -> tuple[str, dict[str, int]]:
    """Name the spacing, and the steps per season to expect at it.

    Parameters
    ----------
    step : int, pandas.Timedelta or pandas.DateOffset
        The distance between two times.
    spacing : int
        Its typical length, in units of time.
    unit : str
        "us" or "ns".
    week : str
        The days that have times, as seven digits from Monday.
    has_holidays : bool
        Whether further days are left out.
    """
    if isinstance(step, int):
        return ("1 step" if step == 1 else f"{step} steps"), {}
    if isinstance(step, offsets.BusinessHour | offsets.BusinessDay) or week != "1111111":
        name, seasons = _describe_open_days(step, spacing, unit, week)
    else:
        name, seasons = _describe_even(spacing, PER_DAY[unit])
    if has_holidays:
        # The holidays move from year to year, so that no number of steps spans one.
        seasons.pop("52 weeks", None)
        name += " without holidays"
    return name, seasons


def _describe_open_days(
    step: Any, spacing: int, unit: str, week: str
) -> tuple[str, dict[str, int]]:
    slots, per_step = slots_per_day(step)
    days = 5 if isinstance(step, offsets.BusinessHour) else week.count("1")
    if slots > 1:
        per_day = slots // per_step if slots % per_step == 0 else 0
        name = "business hours" if isinstance(step, offsets.BusinessHour) else ""
        name = name or f"{_describe_even(spacing, PER_DAY[unit])[0]} on open days"
        return name, {"1 week": days * per_day, "1 day": per_day} if per_day > 1 else {}
    name = "business days" if week == "1111100" else f"{days} days a week"
    if per_step > 1:
        return f"every {per_step} {name}", {}
    return name, {"52 weeks": 52 * days, "1 week": days}


def _describe_even(spacing: int, day: int) -> tuple[str, dict[str, int]]:
    if spacing < day:
        seasons = {
            name: length // spacing
            for name, length in (("1 week", 7 * day), ("1 day", day))
            if length % spacing == 0
        }
        if spacing * 24 == day:
            return "hourly", seasons
        units = {"hours": 24, "minutes": 1440, "seconds": 86_400}
        unit = next((name for name in units if spacing * units[name] >= day), "seconds")
        per_day = units[unit]
        count = f"{spacing * per_day / day:g}"
        return f"{count} {unit[:-1] if count == '1' else unit}", seasons
    days = spacing / day
    for name, shortest, longest, seasons in (
        ("daily", 1, 1, {"52 weeks": 364, "1 week": 7}),
        ("weekly", 7, 7, {"52 weeks": 52}),
        ("monthly", 28, 31, {"1 year": 12}),
        ("quarterly", 89, 92, {"1 year": 4}),
        ("yearly", 365, 366, {}),
    ):
        if shortest <= days <= longest:
            return name, dict(seasons)
    return f"{days:g} days", {"1 week": int(7 / days)} if 7 % days == 0 else {}


def spacing_to_dict(step: Any) -> int | dict[str, Any]:
    """Return a step as plain values for JSON."""
    if isinstance(step, int):
        return step
    if isinstance(step, pd.Timedelta):
        return {"unit": step.unit, "length": int(step.to_timedelta64().astype("int64"))}
    if type(step) is pd.DateOffset:
        return {"months": int(step.n * step.kwds["months"])}
    return {"offset": step.freqstr}


def spacing_from_dict(state: int | dict[str, Any]) -> Any:
    """Rebuild a step from the result of `spacing_to_dict`."""
    if isinstance(state, int):
        return state
    if "months" in state:
        return pd.DateOffset(months=state["months"])
    if "length" in state:
        # pandas counts an integer in nanoseconds, which end after 292 years
        return pd.Timedelta(pd.array([state["length"]], "int64").view(f"m8[{state['unit']}]")[0])
    return frequencies.to_offset(state["offset"])
