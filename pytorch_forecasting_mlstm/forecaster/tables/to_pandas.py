"""Tables of users, of pandas, polars, pyarrow and others, as pandas tables."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any

import narwhals.stable.v2 as nw
import pandas as pd

from ..._messages import one_line, printable
from ..errors import Argument, InputError, quoted
from .table_kind import TableKind

_CURE = ": pass a pandas DataFrame, a polars DataFrame or LazyFrame, or a pyarrow Table"


def to_pandas(table: Any, name: str = "table") -> tuple[pd.DataFrame, TableKind]:
    """Convert a table to pandas, with rows counted from 0; the table itself is not changed.

    Named levels of an index become columns, unless a column has that name. An index of dates
    without a name becomes the column "index". Any other index is dropped.

    Parameters
    ----------
    table : pandas.DataFrame, polars.DataFrame, polars.LazyFrame, pyarrow.Table or similar
        Anything that narwhals can convert, or that exports an Arrow stream.
    name : str, default "table"
        Name of the argument in messages.

    Returns
    -------
    frame : pandas.DataFrame
        The same rows, in the same order.
    kind : TableKind
        Returns forecasts in the form of `table`. Tables of other libraries than pandas, polars and
        pyarrow come back as what narwhals collects them to: DuckDB's, for example, as pyarrow.

    Raises
    ------
    InputError
        If `table` is no table, is empty, or has column names that are not unique or not text.

    Examples
    --------
    >>> dates = pd.date_range("2024-01-01", periods=2, name="date")
    >>> frame, kind = to_pandas(pd.DataFrame({"sales": [3, 4]}, index=dates))
    >>> frame.columns.tolist(), kind.library
    (['date', 'sales'], 'pandas')
    """
    if isinstance(table, pd.DataFrame):
        _check_names(list(table.columns), name)
        frame = _reset_index(table)
        kind = TableKind("pandas", dtypes=frame.dtypes.to_dict())
    else:
        frame, kind = _convert(table, name)
        _check_names(list(frame.columns), name)
    if frame.empty:
        what = "rows" if len(frame.columns) else "columns"
        raise InputError(Argument(name), f" has no {what}: pass a table with one row per time")
    return frame, kind


def _reset_index(table: pd.DataFrame) -> pd.DataFrame:
    """Return a copy whose index counts rows; turn named levels and dates into columns."""
    frame = pd.DataFrame(table).reset_index(drop=True)
    levels = [table.index.get_level_values(level) for level in range(table.index.nlevels)]
    is_dates = isinstance(table.index, pd.DatetimeIndex | pd.PeriodIndex)
    names = ["index" if is_dates and level.name is None else level.name for level in levels]
    kept = [
        (name, level)
        for name, level in zip(names, levels, strict=True)
        if isinstance(name, str) and name not in frame.columns and names.count(name) == 1
    ]
    for position, (name, level) in enumerate(kept):
        frame.insert(position, name, pd.Series(level, index=frame.index))
    return frame


def _convert(table: Any, name: str) -> tuple[pd.DataFrame, TableKind]:
    """Convert a table of another library than pandas."""
    wrapped = _wrap(table, name)
    try:
        lazy = isinstance(wrapped, nw.LazyFrame)
        eager = wrapped.collect() if isinstance(wrapped, nw.LazyFrame) else wrapped
        frame = pd.DataFrame(eager.to_pandas()).reset_index(drop=True)
    except ModuleNotFoundError as error:
        raise InputError(
            "reading ", Argument(name), f" of type {_describe_type(table)} needs {error.name}: ",
            f"pip install {error.name}",
        ) from error  # fmt: skip
    except Exception as error:  # of whichever library executes the query or converts a column
        raise InputError(
            Argument(name),
            f" of type {_describe_type(table)} cannot be converted to pandas "
            f"({type(error).__name__}: {one_line(error)}): pass only columns that it can convert",
        ) from error
    native = nw.to_native(eager)
    library = type(native).__module__.partition(".")[0]
    if library == "polars":
        return frame, TableKind("polars", lazy, dict(native.schema))
    if library == "pyarrow":
        schema = native.schema
        return frame, TableKind(
            "pyarrow", dtypes=dict(zip(schema.names, schema.types, strict=True))
        )
    return frame, TableKind("pandas", dtypes=frame.dtypes.to_dict())


def _wrap(table: Any, name: str) -> nw.DataFrame[Any] | nw.LazyFrame[Any]:
    """Give a table the interface of narwhals."""
    names = getattr(table, "column_names", None)  # of pyarrow; narwhals' own error is long
    if isinstance(names, list):
        _check_names(names, name)
    with suppress(TypeError):
        return nw.from_native(table)
    if hasattr(type(table), "__arrow_c_stream__"):
        with suppress(Exception):  # such as a column, which is no table
            import pyarrow as pa

            return nw.from_native(pa.table(table))
    raise InputError(Argument(name), f" must be a table, got {_describe_type(table)}{_CURE}")


def _check_names(names: list[Any], argument: str) -> None:
    """Check that the names of columns are unique texts."""
    for name in names:
        if not isinstance(name, str):
            raise InputError(
                Argument(argument),
                f" has a column named {printable(name)} of type {type(name).__name__}: "
                "rename its columns to text",
            )
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        more = f" and {len(repeated) - 1} more names" if len(repeated) > 1 else ""
        raise InputError(
            Argument(argument),
            f" has {names.count(repeated[0])} columns named {quoted(repeated[0])}{more}: "
            "rename or drop them",
        )


def _describe_type(value: Any) -> str:
    kind = type(value)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"
