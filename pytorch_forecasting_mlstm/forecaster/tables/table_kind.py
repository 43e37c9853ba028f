"""The library and the column types of a user's table, to return forecasts in the same form."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd
from pandas.api import types

Library = Literal["pandas", "polars", "pyarrow"]


@dataclass(frozen=True)
class TableKind:
    """What a table was before `to_pandas`, and the way back.

    Attributes
    ----------
    library
        "pandas", "polars" or "pyarrow".
    lazy
        Whether it was a polars LazyFrame.
    dtypes
        The types of its columns in that library, by name.

    Examples
    --------
    >>> from pytorch_forecasting_mlstm.forecaster.tables.to_pandas import to_pandas
    >>> table = pd.DataFrame({"store": pd.array([7, 8], dtype="Int32"), "sales": [1, 2]})
    >>> frame, kind = to_pandas(table)
    >>> forecast = pd.DataFrame({"store": [7, 8], "prediction": [1.5, 2.5]})
    >>> kind.restore(forecast).dtypes.astype(str).to_dict()
    {'store': 'Int32', 'prediction': 'float64'}
    """

    library: Library = "pandas"
    lazy: bool = False
    dtypes: Mapping[str, Any] = field(default_factory=dict)

    def restore(self, frame: pd.DataFrame) -> Any:
        """Return a table of this kind, with the same columns and rows.

        A column that the original table has, too, gets its type if no value changes by that, so
        that the two can be joined. Numbers with decimals never become whole numbers: a forecast may
        have the name of a column of counts.

        Parameters
        ----------
        frame : pandas.DataFrame
            For example a forecast; its index is dropped.

        Returns
        -------
        pandas.DataFrame, polars.DataFrame, polars.LazyFrame or pyarrow.Table
        """
        frame = frame.reset_index(drop=True)
        if self.library == "polars":
            return self._to_polars(frame)
        return self._to_pyarrow(frame) if self.library == "pyarrow" else self._to_pandas(frame)

    def _to_pandas(self, frame: pd.DataFrame) -> pd.DataFrame:
        columns = {}
        for name, column in frame.items():
            dtype = self.dtypes.get(str(name), column.dtype)
            if dtype == column.dtype or (
                types.is_float_dtype(column.dtype) and not types.is_float_dtype(dtype)
            ):
                continue
            if (
                isinstance(dtype, pd.CategoricalDtype)
                and not (column.isna() | column.isin(dtype.categories)).all()
            ):
                continue  # pandas would empty the others, or warn
            with suppress(ValueError, TypeError, OverflowError, NotImplementedError):
                converted = column.astype(dtype)
                if (converted.isna() == column.isna()).all() and (
                    converted.astype(object)[column.notna()]
                    == column.astype(object)[column.notna()]
                ).all():
                    columns[name] = converted
        return frame.assign(**columns)

    def _to_polars(self, frame: pd.DataFrame) -> Any:
        import polars as pl

        table = pl.from_pandas(frame)
        for name in table.columns:
            column, dtype = table[name], self.dtypes.get(name)
            if dtype is None or dtype == column.dtype:
                continue
            if column.dtype.is_float() and not dtype.is_float():
                continue
            with suppress(pl.exceptions.PolarsError):
                converted = column.cast(dtype, strict=True)
                back = converted.cast(column.dtype, strict=True)
                if back.equals(column, check_dtypes=True, null_equal=True):
                    table = table.with_columns(converted)
        return table.lazy() if self.lazy else table

    def _to_pyarrow(self, frame: pd.DataFrame) -> Any:
        import pyarrow as pa

        table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        for position, name in enumerate(table.column_names):
            column, dtype = table[name], self.dtypes.get(name)
            if dtype is None or dtype == column.type:
                continue
            if pa.types.is_floating(column.type) and not pa.types.is_floating(dtype):
                continue
            with suppress(pa.ArrowException, NotImplementedError):
                converted = _arrow_cast(column, dtype)
                if _arrow_cast(converted, column.type).equals(column):
                    table = table.set_column(position, name, converted)
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return the kind as plain JSON values."""
        return {"library": self.library, "lazy": self.lazy, "dtypes": self._write_dtypes()}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TableKind:
        """Rebuild what `to_dict` wrote; the library must be installed."""
        library = state["library"]
        read: dict[str, Callable[[Any], dict[str, Any]]] = {
            "pandas": _read_pandas,
            "polars": _read_polars,
            "pyarrow": _read_pyarrow,
        }
        return cls(library, bool(state["lazy"]), read[library](state["dtypes"]))

    def _write_dtypes(self) -> Any:
        if self.library == "pandas":
            written = {name: _write_pandas_dtype(dtype) for name, dtype in self.dtypes.items()}
            return {name: dtype for name, dtype in written.items() if dtype is not None}
        if self.library == "polars":
            import polars as pl

            buffer = io.BytesIO()
            pl.DataFrame(schema=dict(self.dtypes)).write_ipc(buffer)
            return base64.b64encode(buffer.getvalue()).decode()
        import pyarrow as pa

        schema = pa.schema(list(self.dtypes.items()))
        return base64.b64encode(schema.serialize().to_pybytes()).decode()


def _arrow_cast(column: Any, dtype: Any) -> Any:
    """Cast a column; pyarrow has no cast to dictionaries with other than 32-bit indices."""
    import pyarrow as pa

    if not pa.types.is_dictionary(dtype) or column.type == dtype:
        return column.cast(dtype)
    arrays = []
    for chunk in column.chunks:
        encoded = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
        arrays.append(
            pa.DictionaryArray.from_arrays(
                encoded.indices.cast(dtype.index_type),
                encoded.dictionary.cast(dtype.value_type),
                ordered=dtype.ordered,
            )
        )
    return pa.chunked_array(arrays, dtype)


def _write_pandas_dtype(dtype: Any) -> Any:
    if not isinstance(dtype, pd.CategoricalDtype):
        return str(dtype)
    categories = [] if dtype.categories is None else dtype.categories.tolist()
    try:
        written = json.dumps(categories)
    except (TypeError, ValueError):  # such as dates, whose columns come back without categories
        return None
    return {"categories": json.loads(written), "ordered": bool(dtype.ordered)}


def _read_pandas(state: Mapping[str, Any]) -> dict[str, Any]:
    dtypes: dict[str, Any] = {}
    for name, dtype in state.items():
        with suppress(TypeError, ValueError):  # such as a type of a newer pandas
            dtypes[name] = (
                pd.CategoricalDtype(dtype["categories"], dtype["ordered"])
                if isinstance(dtype, dict)
                else types.pandas_dtype(dtype)
            )
    return dtypes


def _read_polars(state: str) -> dict[str, Any]:
    import polars as pl

    return dict(pl.read_ipc(io.BytesIO(base64.b64decode(state))).schema)


def _read_pyarrow(state: str) -> dict[str, Any]:
    import pyarrow as pa

    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(state)))
    return dict(zip(schema.names, schema.types, strict=True))
