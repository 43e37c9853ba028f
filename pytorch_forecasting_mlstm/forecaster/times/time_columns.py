"""Columns of times of any type of pandas or pyarrow, and objects of Python, as NumPy types."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timezone
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from ..errors import InputError
from .time_zones import zone_name

_ARROW = "arrow: "


def plain_values(column: pd.Series) -> pd.Series:
    """Return the values of categories and of columns of pyarrow in types of NumPy."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if isinstance(column.dtype, pd.ArrowDtype) and not column.isna().any():
        return pd.Series(column.array.__arrow_array__().to_pandas())
    return column.reset_index(drop=True)


def dtype_name(column: pd.Series) -> str:
    """Return a name of the dtype of the values, from which `dtype_of_name` rebuilds it."""
    is_category = isinstance(column.dtype, pd.CategoricalDtype)
    dtype: Any = column.cat.categories.dtype if is_category else column.dtype
    if isinstance(dtype, pd.ArrowDtype):
        return f"{_ARROW}{dtype.pyarrow_dtype}"
    if isinstance(dtype, pd.DatetimeTZDtype):
        return f"datetime64[{dtype.unit}]"
    if isinstance(dtype, pd.StringDtype) and dtype.na_value is pd.NA:
        return f"string[{dtype.storage}]"
    return str(dtype)


def dtype_of_name(name: str) -> Any:
    """Return the dtype that `dtype_name` named; without a zone, except in pyarrow's types."""
    if not name.startswith(_ARROW):
        return types.pandas_dtype(name)
    import pyarrow

    alias = name.removeprefix(_ARROW)
    try:
        return pd.ArrowDtype(pyarrow.type_for_alias(alias))
    except ValueError:
        return pd.ArrowDtype.construct_from_string(f"{alias}[pyarrow]")


def period_starts(values: pd.Series) -> pd.DatetimeIndex:
    """Return the begin of periods."""
    try:
        return pd.DatetimeIndex(values.dt.to_timestamp(how="start"))
    except pd.errors.OutOfBoundsDatetime as error:
        raise InputError(
            f"column {values.name!r}: this version of pandas has no timestamps for periods before "
            "1678 or after 2261: write them as text"
        ) from error


def without_zone(stamps: pd.DatetimeIndex) -> tuple[pd.DatetimeIndex, str | None]:
    """Return times without a zone, in UTC if they had one, and the name of the zone."""
    if stamps.tz is None:
        return stamps, None
    return stamps.tz_convert("UTC").tz_localize(None), zone_name(stamps.tz)


def read_objects(values: pd.Series) -> tuple[str, pd.DatetimeIndex, str | None] | None:
    """Read objects of Python and pandas: kind, times and zone; None for other values."""
    if values.dtype != object or not all(isinstance(v, date | np.datetime64) for v in values):
        return None
    if any(isinstance(value, pd.Timestamp | np.datetime64) for value in values):
        stamps = [pd.Timestamp(value) for value in values]
        aware: list[Any] = [stamp for stamp in stamps if stamp.tz is not None]
        if len(aware) not in (0, len(stamps)):
            return None
        instants = [s.tz_convert("UTC").tz_localize(None) if s.tz else s for s in stamps]
        unit = "ns" if any(stamp.nanosecond for stamp in instants) else "us"
        array = np.array([stamp.as_unit(unit).to_datetime64() for stamp in instants])
        return "Timestamps", pd.DatetimeIndex(array), _common_zone(aware)
    aware = [v for v in values if isinstance(v, datetime) and v.tzinfo is not None]
    if len(aware) not in (0, len(values)):
        return None
    plain = [v.astimezone(timezone.utc).replace(tzinfo=None) for v in aware] or list(values)
    kind = "datetimes" if any(isinstance(value, datetime) for value in values) else "dates"
    return kind, pd.DatetimeIndex(np.array(plain, dtype="datetime64[us]")), _common_zone(aware)


def _common_zone(stamps: Sequence[Any]) -> str | None:
    """Return the zone of aware objects; UTC if there are several, which compares as equal."""
    names = {zone_name(stamp.tzinfo) for stamp in stamps}
    return next(iter(names)) if len(names) == 1 else "UTC" if names else None


def whole_numbers(values: pd.Series) -> pd.Series | None:
    """Return numbers that are whole as integers; None for anything else."""
    if values.dtype == object:
        is_whole = all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in values)
        return values if is_whole else None
    if types.is_bool_dtype(values.dtype) or not types.is_numeric_dtype(values.dtype):
        return None
    if types.is_integer_dtype(values.dtype):
        return values
    whole = (values % 1 == 0) & (values.abs() <= 2**53)
    return values.astype("int64") if whole.all() else None
