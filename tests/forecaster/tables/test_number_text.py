"""Numbers in text have one meaning, or are refused with the way to give them one."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytorch_forecasting_mlstm import InputError
from pytorch_forecasting_mlstm.forecaster.tables.number_text import convert_numbers


def convert(
    cells: list, *, separator: str = ",", decimal: str | None = None, beside: list | None = None
) -> list:
    """Convert the target column of a file, which may have a known column beside it."""
    table = pd.DataFrame({"sales": pd.Series(cells, dtype=object)})
    if beside is not None:
        table["price"] = beside
    others = [] if beside is None else ["price"]
    convert_numbers(table, ["sales"], others, "t.csv", separator=separator, decimal=decimal)
    return table["sales"].tolist()


@pytest.mark.parametrize(
    ("cells", "separator", "decimal", "numbers"),
    [
        (["1", " 20 ", "-3", "+4"], ",", None, [1, 20, -3, 4]),
        (["1.5", "2", ".5", "3."], ",", None, [1.5, 2, 0.5, 3]),
        (["1.003", "0.5"], ",", None, [1.003, 0.5]),
        (["1.003", "1234.567"], ";", None, [1.003, 1234.567]),
        (["1.003e3", "1E5", "-inf"], ",", None, [1003, 1e5, -np.inf]),
        (["1,5", "2"], ";", None, [1.5, 2]),
        (["1,003", "0,5"], "\t", None, [1.003, 0.5]),
        (["1.003", "2.500"], ";", ",", [1003, 2500]),
        (["1.003", "2.500"], ";", ".", [1.003, 2.5]),
        (["1.003.000,25", "7", "0,001"], ";", ",", [1003000.25, 7, 0.001]),
        (["1,003", "2"], ",", ".", [1003, 2]),
        (
            ["1'003.5", "1’003", "1 003", "1\u202f003", "1\u00a0003"],
            ",",
            ".",
            [1003.5] + 4 * [1003],
        ),
        ([1.5, "2.5", None], "", None, [1.5, 2.5, np.nan]),
    ],
)
def test_convert_numbers(cells: list, separator: str, decimal: str, numbers: list) -> None:
    np.testing.assert_array_equal(convert(cells, separator=separator, decimal=decimal), numbers)


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (["950", "1.003", "2.500"], ","),  # thousands, or three decimals
        (["1.003", "2.500"], ";"),
        (["1.003", "2.500"], "\t"),
        (["1,003", "2,500"], ";"),
        (["1,003", "2"], ","),
        (["1,5", "2"], ","),  # in quotes
        (["1,5", "2.5"], ";"),
        (["1.003.000", "2"], ";"),
        (["1.003,5", "2"], ";"),
        (["1,003.5", "2"], ","),
        (["1'003", "2"], ","),
        (["1’003.50", "2.5"], ","),
        (["1 003", "2"], ","),
        (["1\u00a0003", "2"], ","),
        (["1\u202f003", "2"], ","),
        (["1_003", "2"], ","),
        ([1.5, "1.003"], ""),  # text in a file of typed cells
    ],
)
def test_convert_numbers_refuses_two_meanings(cells: list, separator: str) -> None:
    with pytest.raises(InputError) as caught:
        convert(cells, separator=separator)
    message = caught.value.message(lambda name: f"--{name}")
    assert re.match(r"t.csv, column 'sales': ['\"]1.* in rows? [12]", message)
    assert "thousands" in message
    assert message.endswith("name the decimal mark, . or , with --decimal")


def test_convert_numbers_other_columns_tell_the_decimal_mark() -> None:
    assert convert(["1,003", "2"], separator=";", beside=["1,5", "2,5"]) == [1.003, 2]
    assert convert(["1.003", "2"], beside=["1.5", "2.5"]) == [1.003, 2]
    with pytest.raises(InputError, match="'1.003' in row 1"):
        convert(["1.003", "2"], separator=";", beside=["1,5", "2,5"])


@pytest.mark.parametrize(
    "cell",
    ["12 %", "12%", "€ 12", "12 EUR", "$12.50", "-$5", "CHF 1'003.-", "1.003 €", "(5)", "5-", "−5"],
)
def test_convert_numbers_refuses_signs(cell: str) -> None:
    """Also in covariates, where the text would count as classes."""
    with pytest.raises(InputError, match=re.escape(f"{cell}") + ".* is no plain number: remove si"):
        convert(["1", cell], decimal=None)
    table = pd.DataFrame({"price": [cell, "1"]})
    with pytest.raises(InputError, match="is no plain number"):
        convert_numbers(table, [], ["price"], "t.csv")


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["yes", "no", ""], ["yes", "no", None]),
        (["1.2.3", "2"], ["1.2.3", "2"]),
        (["1 2", "2024-01"], ["1 2", "2024-01"]),
        (["x", "5 %"], ["x", "5 %"]),
        (["9" * 101, "1"], ["9" * 101, "1"]),
        (["True", "FALSE"], [True, False]),
        (["NA", "5"], [np.nan, 5.0]),
        ([7, None], [7, None]),
    ],
)
def test_convert_numbers_keeps_classes_and_booleans(cells: list, values: list) -> None:
    table = pd.DataFrame({"promo": pd.Series(cells, dtype=object)})
    convert_numbers(table, [], ["promo"], "t.csv")
    pd.testing.assert_series_equal(
        table["promo"].astype(object).where(table["promo"].notna(), None),
        pd.Series(values, dtype=object, name="promo").where(pd.notna(values), None),
    )


def test_convert_numbers_given_mark_that_does_not_fit() -> None:
    with pytest.raises(InputError, match="'12.5' in row 1 is no number with the decimal mark ','"):
        convert(["12.5", "2"], separator=";", decimal=",")


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1), st.sampled_from(".,"), st.data())
def test_convert_numbers_never_reads_thousands_as_decimals(
    numbers: list[int], thousands: str, data: st.DataObject
) -> None:
    """Whole numbers with marks between thousands are refused, or read as they are meant."""
    cells = [f"{number:,}".replace(",", thousands) for number in numbers]
    separator = data.draw(st.sampled_from(",;\t"))
    try:
        read = convert(cells, separator=separator)
    except InputError:
        assert any(abs(number) >= 1000 for number in numbers)
    else:
        assert read == numbers
    other = "," if thousands == "." else "."
    assert convert(cells, separator=separator, decimal=other) == numbers
