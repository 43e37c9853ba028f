"""Tables of many kinds give tidy forecasts with the right times and names."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from helpers.command_line import QUANTILES, Forecast
from helpers.datasets import ignore_flat_histories
from helpers.tables import daily, noisy_season, stores


def test_run_forecast_keeps_names_and_order_of_groups(forecast: Forecast) -> None:
    """Store 010 stays 010, and NA is a name; series may differ in length, and rows are shuffled."""
    table = stores({"010": 80, "9": 45, "NA": 60}).sample(frac=1, random_state=1)
    table["kind of.goods"] = np.where(table["store"] == "9", "1e3", "x")
    result = forecast(table, "date", "sales", 7, "--group", "store", "--group", "kind of.goods")
    order = table["store"].drop_duplicates().tolist()
    assert result["store"].tolist() == np.repeat(order, 7).tolist()
    assert (result["kind of.goods"] == np.where(result["store"] == "9", "1e3", "x")).all()
    for _, rows in result.groupby("store"):
        assert rows["date"].iloc[[0, -1]].tolist() == ["2024-05-01", "2024-05-07"]
    # The series have similar scales, but their forecasts differ.
    assert result.groupby("store")["prediction"].sum().nunique() == 3


def test_run_forecast_series_that_end_at_different_times(forecast: Forecast) -> None:
    table = stores({"a": 60, "b": 60})
    table = table[(table["store"] == "a") | (table["date"] <= "2024-04-20")]
    result = forecast(table, "date", "sales", 3, "--group", "store")
    assert result["date"].tolist() == [
        *("2024-05-01", "2024-05-02", "2024-05-03"),
        *("2024-04-21", "2024-04-22", "2024-04-23"),
    ]


@pytest.mark.parametrize(
    "sales",
    [
        np.arange(60) % 7,
        np.arange(60) % 7 < 2,
        np.full(60, 3.25),
        1e39 * noisy_season(60),
        1e9 + noisy_season(60),
        -1e-40 * noisy_season(60),
    ],
    ids=["integers", "booleans", "constant", "large", "far from 0", "small"],
)
@ignore_flat_histories
def test_run_forecast_stays_in_the_range_of_the_target(
    forecast: Forecast, sales: np.ndarray
) -> None:
    table = daily().assign(sales=sales)
    result = forecast(table, "date", "sales", 3)
    values = sales.astype(float)
    margin = np.ptp(values) or np.abs(values).max()
    assert result["prediction"].between(values.min() - margin, values.max() + margin).all()
    if values.min() == 0:
        assert (result[QUANTILES] >= 0).all(axis=None), "amounts are not negative"


def test_run_forecast_uses_known_columns(forecast: Forecast) -> None:
    """Numbers, text and booleans: if their future changes, the forecast changes."""
    table = stores({"a": 60, "b": 50}).assign(price=1.0, promo="no", open=True)
    table.loc[::5, ["price", "promo", "open"]] = [0.5, "yes", False]
    table.loc[table["date"] > "2024-04-27", "sales"] = np.nan
    known = ["--group", "store", "--known", "price", "--known", "promo", "--known", "open"]
    first = forecast(table, "date", "sales", 3, *known)
    assert first["date"].tolist() == ["2024-04-28", "2024-04-29", "2024-04-30"] * 2
    table.loc[table["sales"].isna(), "price"] = 0.25
    second = forecast(table, "date", "sales", 3, *known)
    assert (first["prediction"] != second["prediction"]).all()
    table.loc[table["sales"].isna(), "promo"] = "never seen before"
    third = forecast(table, "date", "sales", 3, *known)
    assert (second["prediction"] != third["prediction"]).all()


def test_run_forecast_is_determined_by_the_seed(
    forecast: Forecast, daily_forecast: pd.DataFrame
) -> None:
    """The same seed gives the same forecast, another seed another one."""
    pd.testing.assert_frame_equal(forecast(daily(60), "date", "sales", 3), daily_forecast)
    another_seed = forecast(daily(60), "date", "sales", 3, "--seed", "1")
    assert (daily_forecast["prediction"] != another_seed["prediction"]).any()


def test_run_forecast_draws_some_of_many_series(forecast: Forecast) -> None:
    table = stores({f"${k} {'long name ' * 9}": 40 for k in range(8)})
    assert len(forecast(table, "date", "sales", 7, "--group", "store")) == 8 * 7
    assert imread("forecast.png").shape[0] > 900, "two rows of panels"


def test_run_forecast_horizon_and_history_of_one(forecast: Forecast) -> None:
    assert len(forecast(daily(30), "date", "sales", 1, "--history", "1")) == 1


def test_run_forecast_accepts_the_shortest_table(forecast: Forecast) -> None:
    assert len(forecast(daily(24), "date", "sales", 7)) == 7
