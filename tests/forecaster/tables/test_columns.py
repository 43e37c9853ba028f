"""Columns become numbers or classes by their type, without a change of a value."""

from contextlib import suppress
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from pytorch_forecasting_mlstm.forecaster.errors import InputError
from pytorch_forecasting_mlstm.forecaster.tables.columns import read_numbers
from pytorch_forecasting_mlstm.forecaster.tables.covariates import (
    MISSING,
    Covariate,
    read_covariate,
    read_static,
)
from pytorch_forecasting_mlstm.forecaster.tables.groups import read_groups

NUMBERS = [
    ([1, 2], "int64"),
    ([1, None], "Int64"),
    ([1.5, None], "Float64"),
    ([True, False], "bool"),
    ([True, None], "boolean"),
    ([True, None, False], "object"),
    ([Decimal("1.5"), None], "object"),
    ([Decimal("NaN"), 2], "object"),
    ([np.float32(1.5), 2, pd.NA], "object"),
    ([1.5, True], "object"),
    ([2**80, 1], "object"),
    ([1, 0], "Sparse[int]"),
    ([1, None], "int64[pyarrow]"),
    ([True, None], "bool[pyarrow]"),
    ([1.5, None], "double[pyarrow]"),
]


def make_column(values: list[Any], dtype: str) -> pd.Series:
    if dtype.endswith("[pyarrow]"):
        pytest.importorskip("pyarrow")
    return pd.Series(values, dtype=dtype)


@pytest.mark.parametrize(("values", "dtype"), NUMBERS, ids=str)
def test_numbers_of_any_type_are_read(values: list[Any], dtype: str) -> None:
    column = make_column(values, dtype)
    expected = [np.nan if pd.isna(value) else float(value) for value in values]
    numbers = read_numbers(column, "y")
    np.testing.assert_array_equal(numbers, expected)
    assert numbers.dtype == np.float64
    covariate = read_covariate(column, "x", "known")
    assert covariate.is_real
    np.testing.assert_array_equal(covariate.values, expected)


def test_read_numbers_returns_a_copy() -> None:
    column = pd.Series([1.0, 2.0])
    read_numbers(column, "y")[0] = 9
    assert column.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, np.inf], "y is infinite in row 2: fill in a number, or leave it empty"),
        (["1", "-inf"], "y is infinite in row 2"),
        ([10**400, 1], "y is infinite in row 1"),
        ([Decimal("Infinity")], "y is infinite in row 1"),
        ([1, "many"], "y: holds text such as 'many' in row 2: a target must be a number"),
        (["12,5"], "y: '12,5' may have a decimal comma"),
        ([[1], [2]], "y: holds text such as '[1]' in rows 1, 2"),
        ([(1, [2])], "y: holds text such as '(1, [2])' in row 1"),
        ([date(2024, 1, 1)], "y: holds dates, a target must be a number"),
        ([pd.Timestamp("2024"), None], "y: holds dates"),
        ([pd.Period("2024-01", "M")], "y: holds dates"),
        ([timedelta(1)], "y: holds durations"),
        ([time(1)], "y: holds times of day"),
        ([1j], "y: holds complex numbers"),
    ],
)
def test_unusable_numbers_are_refused(values: list[Any], message: str) -> None:
    columns = [pd.Series(values, dtype=object)]
    with suppress(OverflowError):  # pandas cannot find a type for 10**400
        columns.append(pd.Series(values))
    for column in columns:
        with pytest.raises(InputError) as caught:
            read_numbers(column, "y")
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "dtype", "classes"),
    [
        (["rain", None, "sun"], "object", ["rain", MISSING, "sun"]),
        (["rain", None, "sun"], "string", ["rain", MISSING, "sun"]),
        (["rain", None, "sun"], "category", ["rain", MISSING, "sun"]),
        (["rain", "", " "], "object", ["rain", MISSING, MISSING]),
        ([1, 2, 1], "category", ["1", "2", "1"]),
        ([1.0, None, 2.5], "category", ["1", MISSING, "2.5"]),
        ([1, "a", None], "object", ["1", "a", MISSING]),
        (["1", "2"], "object", ["1", "2"]),
        (["rain", None], "string[pyarrow]", ["rain", MISSING]),
    ],
)
def test_text_and_categories_are_classes(values: list[Any], dtype: str, classes: list[str]) -> None:
    covariate = read_covariate(make_column(values, dtype), "x", "past")
    assert not covariate.is_real
    assert covariate.values.tolist() == classes


def test_later_table_is_read_as_the_fitted_one() -> None:
    """Without values, or with whole numbers that became floats, the type alone would mislead."""
    empty = pd.Series([None, None], dtype=object)
    assert np.isnan(read_covariate(empty, "x", "known", is_real=True).values).all()
    assert read_covariate(empty, "x", "known", is_real=False).values.tolist() == [MISSING] * 2
    fitted = read_covariate(pd.Series([1, 2], dtype="category"), "x", "known")
    later = read_covariate(pd.Series([2.0, np.nan]), "x", "known", is_real=False)
    assert later.values.tolist() == [fitted.values[1], MISSING]
    with pytest.raises(InputError, match="a column fitted with numbers must be a number"):
        read_covariate(pd.Series(["high"]), "x", "known", is_real=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([date(2024, 1, 1)], "column 'x': holds dates, which known cannot use: write what"),
        ([timedelta(1)], "holds durations, which known cannot use"),
        ([time(1)], "holds times of day"),
        ([1j], "holds complex numbers"),
        ([None, None], "column 'x' is empty in every row: remove it from known"),
        ([1.0, np.inf], "column 'x' is infinite in row 2"),
        ([["a"], ["b"]], "column 'x': holds \"['a']\" in rows 1, 2, which known cannot use"),
        ([b"a"], "write classes as text"),
        (["a", {1}], "holds '{1}' in row 2"),
    ],
)
def test_unusable_covariates_are_refused(values: list[Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_covariate(pd.Series(values), "x", "known")
    assert message in str(caught.value)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_static_values_are_those_of_their_series(numbers: list[int], data: st.DataObject) -> None:
    series = pd.factorize(np.array(numbers))[0]
    expected = np.array([f"type {number}" for number in range(series.max() + 1)], dtype=object)
    values = expected[series]
    hidden = np.array([data.draw(st.booleans()) for _ in series])
    values[hidden] = MISSING
    static = read_static(Covariate(values, False), series, "type", "s{}".format)
    shown = np.isin(np.arange(len(expected)), series[~hidden])
    assert static.values.tolist() == np.where(shown, expected, MISSING).tolist()


@pytest.mark.parametrize(
    ("covariate", "message"),
    [
        (
            Covariate(np.array(["a", "b", MISSING, "c"], dtype=object), False),
            "s1: column 'type' changes from 'b' to 'c' in row 4: static columns must have one",
        ),
        (Covariate(np.array([1.0, 2.0, np.nan, 3.0]), True), "changes from '2.0' to '3.0'"),
    ],
)
def test_static_columns_that_change_are_refused(covariate: Covariate, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_static(covariate, np.array([0, 1, 1, 1]), "type", "s{}".format)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ["7", "07", "7"],
        [7, 8, 7],
        [7.5, 8.0, 7.5],
        [True, False, True],
        [("a", 1), ("a", 2), ("a", 1)],
        [date(2024, 1, 1), date(2024, 1, 2), date(2024, 1, 1)],
        ["a", 7, "a"],
    ],
    ids=str,
)
def test_group_names_come_back_as_they_came(names: list[Any]) -> None:
    groups, series = read_groups(pd.DataFrame({"g": pd.Series(names)}), ["g"])
    assert series.tolist() == [0, 1, 0]
    assert groups["g"].tolist() == names[:2]
    assert [type(name) for name in groups["g"].tolist()] == [type(name) for name in names[:2]]


@pytest.mark.parametrize("name", [b"a", ["a"], {"a": 1}, {1}, (1, [2]), np.zeros(2)])
def test_group_names_that_name_nothing_are_refused(name: Any) -> None:
    with pytest.raises(InputError, match=r"group column 'g' holds .* in row 2: write names"):
        read_groups(pd.DataFrame({"g": pd.Series(["a", name], dtype=object)}), ["g"])
