"""The result of a backtest: its tables, its words, and its representation."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from helpers.backtests import backtest_of
from pytorch_forecasting_mlstm.forecaster.evaluation.backtest_result import BacktestResult

DAYS = pd.date_range("2024-01-01", periods=60, freq="D")
STORES = [{"store": "south"}, {"store": "north"}]


def with_forecasts(result: BacktestResult, **columns: object) -> BacktestResult:
    return dataclasses.replace(result, forecasts=result.forecasts.assign(**columns))


def test_errors_of_known_forecasts() -> None:
    errors = backtest_of(DAYS, 5, [40, 50], keys=STORES).errors
    assert errors.index.tolist() == ["mLSTMTime", "SeasonalNaive"]
    for model, error in (("mLSTMTime", 1.0), ("SeasonalNaive", 3.0)):
        assert errors.loc[model, ["MAE", "RMSE"]].tolist() == pytest.approx([error, error])
        assert errors.loc[model, "MASE"] == pytest.approx(error / 2)
    assert errors["coverage"].tolist() == [1.0, 0.0]  # the bounds are 2.56 away
    assert errors["nominal"].tolist() == [0.8, 0.8] and errors["values"].tolist() == [20, 20]


def test_tables_by_series_cutoff_and_step() -> None:
    result = backtest_of(DAYS, 5, [50, 40], keys=STORES)  # the later cutoff first
    assert result.errors_by_series.index.names == ["store", "model"]
    assert result.errors_by_series.index.get_level_values(0).unique().tolist() == ["south", "north"]
    cutoffs = result.errors_by_cutoff.index.get_level_values("cutoff").unique()
    assert cutoffs.tolist() == [DAYS[39], DAYS[49]], "in time order"
    assert result.errors_by_step.index.get_level_values("step").unique().tolist() == [1, 2, 3, 4, 5]
    assert result.errors is result.errors, "computed once"
    single = backtest_of(DAYS, 5, [40])
    pd.testing.assert_frame_equal(single.errors_by_series, single.errors)


def test_several_targets_are_series() -> None:
    result = backtest_of(DAYS, 5, [40], keys=[{"target": "sales"}, {"target": "visits"}])
    result = dataclasses.replace(result, target=["sales", "visits"], group=())
    assert result.series == ["target"]
    assert result.errors_by_series.index.get_level_values("target").unique().tolist() == [
        "sales",
        "visits",
    ]
    assert "Backtest of sales and visits: 2 series, 1 cutoff, 5 steps ahead" in repr(result)


def test_coverage_warning_from_ten_points_on() -> None:
    result = backtest_of(DAYS, 10, [30, 40], keys=STORES)
    actual = result.forecasts["actual"]
    order = np.arange(len(actual)) % 10
    for inside, expected in ((10, "more"), (9, "more"), (8, None), (7, "fewer"), (0, "fewer")):
        low = actual.where(order < inside, actual + 1) - 0.5
        words = with_forecasts(result, **{"q0.1": low, "q0.9": low + 1}).coverage_warning()
        if expected is None:
            assert words is None
            continue
        points = abs(10 * inside - 80)
        assert words is not None
        assert f"80 % interval of mLSTMTime holds {10 * inside} % of 40 actual values" in words
        assert f"{points} points {expected} than it should" in words


def test_coverage_warning_of_few_values_asks_for_more() -> None:
    words = backtest_of(DAYS, 2, [40]).coverage_warning()
    assert words is not None and "2 actual values" in words and "more cutoffs" in words
    assert backtest_of(DAYS, 2, [40], levels=()).coverage_warning() is None
    assert backtest_of(DAYS, 2, [40], levels=(0.5, 0.9)).coverage_warning() is None


def test_missing_forecasts_are_counted_and_named() -> None:
    result = backtest_of(DAYS, 5, [40, 50], keys=STORES)
    assert result.missing_warning() is None
    table = result.forecasts
    gone = (table["store"] == "north") & (table["model"] == "SeasonalNaive")
    result = with_forecasts(result, prediction=table["prediction"].mask(gone))
    words = result.missing_warning()
    assert words is not None
    assert "SeasonalNaive has no forecast for 10 of 20 values, in (store=north)" in words
    assert np.isnan(result.errors_by_series.loc[("north", "SeasonalNaive"), "MAE"])
    assert "no forecast for 10 of 20" in repr(result)


def test_repr_shows_errors_and_words() -> None:
    result = backtest_of(DAYS, 5, [40, 50], keys=STORES)
    text = repr(result)
    assert text.startswith("Backtest of sales: 2 series, 2 cutoffs, 5 steps ahead")
    assert "coverage of 80 % interval" in text and "100 %" in text
    assert "The 80 % interval of mLSTMTime holds 100 % of 20 actual values" in text
    html = result._repr_html_()
    assert "<table" in html and "Backtest of sales" in html
    named = dataclasses.replace(result, target="<b>$sales</b>")
    assert "&lt;b&gt;$sales&lt;/b&gt;" in named._repr_html_()
    points = repr(backtest_of(DAYS, 5, [40], levels=()))
    assert "coverage" not in points and "pinball" not in points


def test_repr_of_large_small_and_undefined_numbers() -> None:
    result = backtest_of(DAYS, 5, [40])
    table = result.forecasts
    huge = with_forecasts(result, prediction=table["actual"] + 123456.7)
    assert "123,457" in repr(huge)
    unknown = with_forecasts(result, actual=np.nan)
    assert "0" in repr(unknown).splitlines()[4] and "MAE" not in repr(unknown)
