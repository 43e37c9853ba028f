"""Write times back in the form in which they came."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from ..errors import InputError
from .time_columns import dtype_of_name
from .time_patterns import write_pattern
from .time_zones import read_zone, to_instants, to_wall


@dataclass(frozen=True)
class TimeFormat:
    """The form of a column of times.

    Inside, times are integers or timestamps without a zone. Where a zone is known, these are in
    UTC, or by the local clock if the times are evenly spaced by it.

    Attributes
    ----------
    kind
        "integers", "timestamps", "text", "digits" (dates as whole numbers), "dates" or "datetimes"
        (objects of Python), "Timestamps" (objects of pandas) or "periods".
    dtype
        Name of the column's dtype.
    name
        Name of the column.
    pattern
        Pattern of text, as in `write_pattern`; for whole numbers as text, the format of Python.
    zone
        Zone that the column itself carries.
    clock
        Zone whose clock the times follow; None if no zone is known.
    local
        Whether times inside are by the local clock of `clock`, rather than in UTC.
    summer, shift
        How local times relate to UTC at clock changes, as in `to_instants`.

    Examples
    --------
    >>> from pytorch_forecasting_mlstm.forecaster.times.timestamps import read_times
    >>> column = pd.Series(["31.03.2024", "30.04.2024"], name="month")
    >>> times, form = read_times(column)
    >>> form.write(times + pd.offsets.MonthEnd()).tolist()
    ['30.04.2024', '31.05.2024']
    >>> TimeFormat.from_dict(form.to_dict()) == form
    True
    """

    kind: str
    dtype: str
    name: Any = None
    pattern: str | None = None
    zone: str | None = None
    clock: str | None = None
    local: bool = False
    summer: bool = True
    shift: str = "to the change"

    def write(self, times: pd.Series | pd.Index | np.ndarray) -> pd.Series:
        """Write times as the user does.

        Parameters
        ----------
        times : pandas.Series, pandas.Index or numpy.ndarray
            (N,) of integers or timestamps without a zone, as `read_times` returns them. They may
            lie beyond the column that was read.

        Returns
        -------
        pandas.Series
            (N,) with the dtype, the zone and the text format of the column that was read, and the
            index of `times`. Integers that do not fit into a short dtype are int64.

        Raises
        ------
        InputError
            If the dtype cannot hold a time.
        """
        index = times.index if isinstance(times, pd.Series) else None
        dtype = dtype_of_name(self.dtype)
        # Series share most of their times.
        codes, unique = pd.factorize(np.asarray(times))
        if self.kind == "integers":
            values = self._write_integers(unique, dtype)
        else:
            try:
                values = self._write_stamps(pd.DatetimeIndex(unique), dtype)
            except (pd.errors.OutOfBoundsDatetime, OverflowError) as error:
                raise InputError(
                    f"column {self.name!r}: a time of the forecast does not fit into "
                    f"{self.dtype}: convert the column to datetime64[us]"
                ) from error
        return (
            values.take(codes)
            .set_axis(pd.RangeIndex(len(codes)) if index is None else index)
            .rename(self.name)
        )

    def local_times(self, times: pd.Series | pd.Index) -> pd.DatetimeIndex:
        """Return the times by the local clock, which people follow; as they are without a zone."""
        stamps = pd.DatetimeIndex(times)
        if self.clock is None or self.local:
            return stamps
        return to_wall(stamps, read_zone(self.clock))

    def to_dict(self) -> dict[str, Any]:
        """Return the format as plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> TimeFormat:
        """Rebuild the format from the result of `to_dict`."""
        return cls(**state)

    def _write_integers(self, numbers: np.ndarray, dtype: Any) -> pd.Series:
        if self.pattern is not None:
            width, end = self.pattern.split("|")
            texts = [f"{number:0{int(width)}d}{end}" for number in numbers.tolist()]
            return pd.Series(texts, dtype=object).astype(dtype)
        values = pd.Series(numbers, dtype="int64")
        if types.is_object_dtype(dtype):
            return pd.Series(numbers.tolist(), dtype=object)
        if types.is_integer_dtype(dtype):
            bounds = np.iinfo(getattr(dtype, "numpy_dtype", dtype))
            if len(values) and not bounds.min <= values.min() <= values.max() <= bounds.max:
                return values
        return values.astype(dtype)

    def _write_stamps(self, times: pd.DatetimeIndex, dtype: Any) -> pd.Series:
        stamps, offsets = self._in_zone(times)
        if self.kind in ("text", "digits"):
            texts = write_pattern(str(self.pattern), stamps.tz_localize(None), offsets)
            return _as_written(list(map(int, texts)) if self.kind == "digits" else texts, dtype)
        if self.kind == "periods":
            return pd.Series(pd.PeriodIndex(stamps, freq=dtype.freq))
        if self.kind == "dates":
            return _as_written(stamps.date, dtype)
        if self.kind == "datetimes":
            return _as_written(stamps.to_pydatetime(), dtype)
        if self.kind == "Timestamps":
            return _as_written(list(stamps), dtype)
        if isinstance(dtype, pd.ArrowDtype):
            return pd.Series(stamps).astype(dtype)
        exact = stamps.as_unit(np.datetime_data(dtype)[0])
        # A finer step than the unit is kept.
        return pd.Series(exact if (exact == stamps).all() else stamps)

    def _in_zone(self, times: pd.DatetimeIndex) -> tuple[pd.DatetimeIndex, np.ndarray]:
        """Return times in the zone of the column, and the minutes that it is ahead of UTC."""
        no_offsets = np.zeros(len(times), dtype=int)
        if self.clock is None or (self.local and self.zone is None):
            return times, no_offsets
        clock = read_zone(self.clock)
        instants = times
        if self.local:
            instants = to_instants(times, clock, summer=self.summer, shift=self.shift)
        if self.zone is None:
            return to_wall(instants, clock), no_offsets
        stamps = instants.tz_localize("UTC").tz_convert(read_zone(self.zone))
        ahead = stamps.tz_localize(None).as_unit("us").asi8 - instants.as_unit("us").asi8
        return stamps, ahead // (60 * 10**6)


def _as_written(objects: Any, dtype: Any) -> pd.Series:
    values = np.empty(len(objects), dtype=object)
    values[:] = objects
    result = pd.Series(values, dtype=object)
    return result if types.is_object_dtype(dtype) else result.astype(dtype)
