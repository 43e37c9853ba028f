"""Tables of every library: the same values come back in the same form."""

import datetime
import json
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from pytorch_forecasting_mlstm.forecaster.errors import InputError
from pytorch_forecasting_mlstm.forecaster.tables.table_kind import TableKind
from pytorch_forecasting_mlstm.forecaster.tables.to_pandas import to_pandas

pl: Any
pa: Any
try:
    import polars as pl
except ImportError:
    pl = None
try:
    import pyarrow as pa
except ImportError:
    pa = None
needs_polars = pytest.mark.skipif(pl is None or pa is None, reason="needs polars and pyarrow")
needs_pyarrow = pytest.mark.skipif(pa is None, reason="needs pyarrow")

DAYS = [datetime.date(2024, 1, day) for day in (1, 2, 3)]
STAMPS = [datetime.datetime(2024, 3, 30 + day, 2, 30) for day in (0, 1)] + [
    datetime.datetime(2024, 4, 1)
]


def polars_table() -> Any:
    stamps = pl.Series(STAMPS)
    return pl.DataFrame(
        {
            "day": DAYS,
            "stamp": stamps.cast(pl.Datetime("ms")),
            "zoned": stamps.dt.replace_time_zone("UTC").dt.convert_time_zone("Europe/Zurich"),
            "store": pl.Series(["b", "a", "b"], dtype=pl.Categorical),
            "size": pl.Series(["S", "M", "S"], dtype=pl.Enum(["S", "M", "L"])),
            "code": pl.Series([7, 8, 7], dtype=pl.Int32),
            "price": pl.Series(["1.50", "2.25", "0.10"]).cast(pl.Decimal(10, 2)),
            "open": [True, False, True],
            "text": ["x", "ä", "z"],
        }
    )


def reload(kind: TableKind) -> TableKind:
    return TableKind.from_dict(json.loads(json.dumps(kind.to_dict())))


@needs_polars
@pytest.mark.parametrize("lazy", [False, True])
def test_polars_tables_come_back_with_their_types(lazy: bool) -> None:
    table = polars_table()
    frame, kind = to_pandas(table.lazy() if lazy else table)
    assert isinstance(frame, pd.DataFrame)
    for known in (kind, reload(kind)):
        restored = known.restore(frame)
        assert isinstance(restored, pl.LazyFrame if lazy else pl.DataFrame)
        restored = restored.lazy().collect()
        assert restored.schema == table.schema
        assert restored.equals(table)


@needs_polars
def test_forecast_joins_with_the_polars_table() -> None:
    """Polars refuses to join columns of different types."""
    table = polars_table().select("day", "store", "code")
    frame, kind = to_pandas(table)
    forecast = pd.DataFrame(
        {
            "day": pd.to_datetime(frame["day"]).astype("datetime64[us]"),
            "store": frame["store"].astype(str),
            "code": frame["code"].astype("int64"),
            "prediction": [1.5, 2.5, 3.5],
        }
    )
    joined = table.join(kind.restore(forecast), on=["day", "store", "code"], how="left")
    assert joined["prediction"].to_list() == [1.5, 2.5, 3.5]


@needs_pyarrow
def test_pyarrow_tables_come_back_with_their_types() -> None:
    stores = pa.array(["b", "a", "b"])
    table = pa.table(
        {
            "day": pa.array(DAYS, pa.date32()),
            "stamp": pa.array(STAMPS, pa.timestamp("s")),
            "zoned": pa.array(STAMPS, pa.timestamp("us", "Europe/Zurich")),
            "store": stores.dictionary_encode(),
            "small": pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int16()), ["S", "M"]),
            "code": pa.array([7, 8, 7], pa.int16()),
            "price": pa.array([Decimal("1.50"), Decimal("2.25"), None], pa.decimal128(8, 2)),
            "text": stores,
        }
    )
    frame, kind = to_pandas(table)
    for known in (kind, reload(kind)):
        restored = known.restore(frame)
        assert restored.schema.remove_metadata() == table.schema
        assert restored.to_pylist() == table.to_pylist()


@pytest.mark.parametrize(
    "stores",
    [
        pd.Series([7, 8, 7], dtype="Int16"),
        pd.Series(["b", "a", "b"], dtype="category"),
        pd.Series(["b", "a", "b"], dtype="string"),
        pd.Series([7, 8, 7], dtype=np.uint8),
        pd.Series([True, False, True]),
        pd.Series([1.5, 2.5, 1.5], dtype=np.float32),
        pd.Series(pd.to_datetime(STAMPS, utc=True).tz_convert("Europe/Zurich")),
        pd.Series(pd.period_range("2024-01", periods=3, freq="M")),
        pd.Series(["a", 7, 2.5], dtype=object),
    ],
    ids=lambda stores: str(stores.dtype),
)
def test_pandas_types_come_back(stores: pd.Series) -> None:
    table = pd.DataFrame({"store": stores, "y": [1, 2, 3]})
    frame, kind = to_pandas(table)
    plain = frame.astype({"store": object})
    for known in (kind, reload(kind)):
        pd.testing.assert_frame_equal(known.restore(plain), table)


def test_restored_values_never_change() -> None:
    """A type that cannot hold the values is not restored, nor is one of counts for a forecast."""
    table = pd.DataFrame({"store": pd.Categorical(["a", "b"]), "y": [1, 2], "n": [1, 2]})
    kind = to_pandas(table.astype({"n": "int8"}))[1]
    forecast = pd.DataFrame({"store": ["a", "new"], "y": [3.0, 4.0], "n": [1, 300]})
    pd.testing.assert_frame_equal(kind.restore(forecast), forecast)


@needs_polars
def test_restored_polars_and_pyarrow_values_never_change() -> None:
    table = pl.DataFrame(
        {"store": pl.Series(["a"], dtype=pl.Enum(["a"])), "y": [1], "n": [1]},
        schema_overrides={"n": pl.Int8},
    )
    forecast = pd.DataFrame({"store": ["a", "new"], "y": [3.0, 4.0], "n": [1, 300]})
    expected = forecast.to_dict("list")
    assert to_pandas(table)[1].restore(forecast).to_dict(as_series=False) == expected
    assert (
        to_pandas(table.cast({"store": pl.String}).to_arrow())[1].restore(forecast).to_pydict()
        == expected
    )


def test_table_of_the_user_is_not_changed() -> None:
    table = pd.DataFrame({"y": [1.0, 2.0]}, index=pd.Index([5, 5], name="row"))
    before = table.copy(deep=True)
    frame, _ = to_pandas(table)
    frame.loc[0, "y"] = 9.0
    frame["new"] = 1
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    ("index", "columns"),
    [
        (pd.Index([7, 7, 8]), ["y"]),
        (pd.date_range("2024", periods=3, name="date"), ["date", "y"]),
        (pd.date_range("2024", periods=3), ["index", "y"]),
        (pd.period_range("2024", periods=3, freq="M"), ["index", "y"]),
        (pd.MultiIndex.from_product([["a"], range(3)], names=["s", "t"]), ["s", "t", "y"]),
        (pd.MultiIndex.from_product([["a"], range(3)], names=[None, "t"]), ["t", "y"]),
        (pd.Index([1, 2, 3], name="y"), ["y"]),
        (pd.Index([1, 2, 3], name=4), ["y"]),
    ],
)
def test_named_levels_of_an_index_become_columns(index: pd.Index, columns: list[str]) -> None:
    frame, _ = to_pandas(pd.DataFrame({"y": [1.0, 2.0, 3.0]}, index=index))
    assert frame.columns.tolist() == columns
    assert frame.index.equals(pd.RangeIndex(3))
    assert frame["y"].tolist() == [1.0, 2.0, 3.0]
    for name in columns[:-1]:
        values = index if index.nlevels == 1 else index.get_level_values(name)
        assert frame[name].tolist() == values.tolist()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros((2, 2)), "future must be a table, got numpy.ndarray: pass a pandas DataFrame"),
        (pd.Series([1], name="y"), "must be a table, got pandas"),
        ({"y": [1]}, "must be a table, got dict"),
        ("t.csv", "must be a table, got str"),
        (None, "must be a table, got NoneType"),
        (pd.DataFrame({0: [1]}), "has a column named 0 of type int: rename"),
        (pd.DataFrame([[1, 2]], columns=["y", "y"]), "has 2 columns named 'y': rename or drop"),
        (pd.DataFrame(columns=pd.MultiIndex.from_tuples([("y", "a")])), "of type tuple"),
        (pd.DataFrame({"y": []}), "future has no rows"),
        (pd.DataFrame(), "future has no columns"),
    ],
)
def test_unusable_tables_are_refused(table: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        to_pandas(table, "future")
    assert message in str(caught.value)


@needs_polars
def test_unusable_tables_of_other_libraries_are_refused() -> None:
    table = polars_table()
    for unusable, message in (
        (table["text"], "must be a table, got polars.series.series.Series"),
        (table.clear(), "has no rows"),
        (table.lazy().select("missing"), "cannot be converted to pandas (ColumnNotFoundError"),
        (pa.Table.from_arrays([pa.array([1])] * 2, ["y", "y"]), "has 2 columns named 'y'"),
    ):
        with pytest.raises(InputError) as caught:
            to_pandas(unusable)
        assert message in str(caught.value)


@needs_pyarrow
def test_any_table_that_exports_arrow_is_taken() -> None:
    class Table:
        def __arrow_c_stream__(self, schema: object = None) -> object:
            return pa.table({"y": [1, 2]}).__arrow_c_stream__(schema)

    frame, kind = to_pandas(Table())
    assert frame["y"].tolist() == [1, 2]
    assert isinstance(kind.restore(frame), pa.Table)


ROWS = st.lists(
    st.tuples(
        st.dates(datetime.date(1700, 1, 1), datetime.date(2250, 1, 1)),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3),
        st.integers(-(2**63), 2**63 - 1),
        st.booleans(),
        st.floats(width=32, allow_nan=False),
    ),
    min_size=1,
    max_size=5,
)


@needs_polars
@pytest.mark.parametrize("examples", [25, pytest.param(100, marks=pytest.mark.slow)])
def test_random_tables_come_back(examples: int) -> None:
    schema = {"d": pl.Date, "s": pl.String, "i": pl.Int64, "b": pl.Boolean, "f": pl.Float32}

    @settings(max_examples=examples, deadline=None)
    @given(ROWS)
    def come_back(rows: list[tuple[Any, ...]]) -> None:
        table = pl.DataFrame(rows, schema=schema, orient="row")
        for form in (table, table.to_arrow()):
            frame, kind = to_pandas(form)
            assert kind.restore(frame).equals(form)
        pandas_table = table.to_pandas()
        frame, kind = to_pandas(pandas_table)
        pd.testing.assert_frame_equal(kind.restore(frame), pandas_table)

    come_back()
