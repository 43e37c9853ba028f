"""A backtest forecasts from what was known at each cutoff."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers.forecasters import COVARIATES, HORIZON, panel_of_values, rich_stores, tiny
from helpers.forecasters import use_naive_network as naive_network
from pytorch_forecasting_mlstm.forecaster import InputError
from pytorch_forecasting_mlstm.forecaster.evaluation.backtesting import choose_cutoffs
from pytorch_forecasting_mlstm.forecaster.panel import panel

pytestmark = pytest.mark.filterwarnings("ignore:the .* interval:UserWarning")
CUT = pd.Timestamp("2024-01-25")  # the first day after the only cutoff
NUMBERS = ["prediction", "q0.1", "q0.5", "q0.9"]
OUTLIERS = pytest.mark.filterwarnings("ignore:.*outlier")


def forecasts(table: pd.DataFrame, model: str = "mLSTMTime", **parameters: Any) -> pd.DataFrame:
    result = tiny(**parameters).backtest(table).forecasts
    return result[result["model"] == model].reset_index(drop=True)


def change_after_cutoff(table: pd.DataFrame) -> pd.DataFrame:
    """Change everything that is not known at the cutoff."""
    later = table["date"] >= CUT
    changed = table.copy()
    changed.loc[later, "sales"] = 1e6 - 7 * changed.loc[later, "sales"]
    changed.loc[later, "rain"] = 1e5
    changed.loc[later, "sky"] = "storm"
    return changed


def tables() -> pd.DataFrame:
    table = rich_stores(27)  # the horizon is January 25 to 27
    table.loc[table["date"].between("2024-01-23", "2024-01-25"), "sales"] = np.nan
    table.loc[5, "sales"] = 3000.0  # an outlier, but for the changed rows
    return table


@OUTLIERS
@pytest.mark.parametrize("missing", ["mask", "interpolate"])
def test_backtest_forecasts_do_not_depend_on_what_comes_later(missing: str) -> None:
    """With the network of the package."""
    if missing == "interpolate":
        with pytest.MonkeyPatch.context() as monkeypatch:
            naive_network(monkeypatch)
            first, second = (
                forecasts(table, missing=missing)
                for table in (tables(), change_after_cutoff(tables()))
            )
    else:
        first, second = (
            forecasts(table, **COVARIATES) for table in (tables(), change_after_cutoff(tables()))
        )
    assert len(first) == 2 * HORIZON
    assert not first["actual"].equals(second["actual"])
    pd.testing.assert_frame_equal(first[NUMBERS], second[NUMBERS], check_exact=True)


@OUTLIERS
@pytest.mark.parametrize("leak", ["targets", "faults and gaps"])
def test_planted_leak_is_found(monkeypatch: pytest.MonkeyPatch, leak: str) -> None:
    """The test above fails if targets after the cutoff are seen, or decide what a fault is."""
    naive_network(monkeypatch)
    if leak == "targets":
        monkeypatch.setattr(panel.Panel, "until", lambda self, position: self)
    else:
        until = panel.Panel.until
        monkeypatch.setattr(
            panel.Panel,
            "until",
            lambda self, position: until(
                panel.clean_targets(self, [], missing="interpolate", outliers="keep"), position
            ),
        )
    first = forecasts(tables(), missing="interpolate")
    second = forecasts(change_after_cutoff(tables()), missing="interpolate")
    assert not first[NUMBERS].equals(second[NUMBERS])


def test_backtest_with_refit_is_fit_and_predict_of_the_cut_table() -> None:
    table, covariates = rich_stores(30), {"known": ["promo"], "past": ["sky"]}
    result = tiny(**covariates).backtest(table, cutoffs=2, step=4, refit=True).forecasts
    result = result[result["model"] == "mLSTMTime"]
    assert result["cutoff"].unique().tolist() == [
        pd.Timestamp("2024-01-23"),
        pd.Timestamp("2024-01-27"),
    ]
    for cutoff, part in result.groupby("cutoff"):
        forecaster = tiny(**covariates).fit(table[table["date"] <= cutoff])
        expected = forecaster.predict(future=table[table["date"] > cutoff])
        pd.testing.assert_frame_equal(
            part[["store", "date", *NUMBERS]].reset_index(drop=True), expected, check_exact=True
        )
        truth = expected.merge(table, on=["store", "date"])["sales"]
        np.testing.assert_array_equal(part["actual"], truth)


def test_backtest_without_refit_fits_before_the_first_cutoff(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The forecasts repeat the last target before each cutoff; series end where they end."""
    naive_network(monkeypatch)
    table = rich_stores(30)
    table = table[(table["store"] == "a") | (table["date"] < "2024-01-28")]
    result = tiny(group="store").backtest(table, cutoffs=3, step=1).forecasts
    result = result[result["model"] == "mLSTMTime"]
    cut = result.merge(
        table.rename(columns={"date": "cutoff", "sales": "last"})[["store", "cutoff", "last"]],
        on=["store", "cutoff"],
    )
    np.testing.assert_allclose(cut["prediction"], cut["last"], rtol=1e-5)
    assert (result["date"] - result["cutoff"]).dt.days.tolist() == result["step"].tolist()
    compared = result.groupby(["cutoff", "store"])["actual"].count().unstack()
    assert compared["a"].tolist() == [3, 3, 3]
    assert compared["b"].fillna(0).tolist() == [2, 1, 0]  # it ends on January 27


def test_backtest_without_baselines(monkeypatch: pytest.MonkeyPatch) -> None:
    naive_network(monkeypatch)
    with_them = tiny().backtest(rich_stores(30), cutoffs=2)
    report = tiny().backtest(rich_stores(30), cutoffs=2, baselines=False)
    assert "SeasonalNaive" in str(with_them)
    expected = with_them.forecasts[with_them.forecasts["model"] == "mLSTMTime"]
    pd.testing.assert_frame_equal(report.forecasts, expected.reset_index(drop=True))
    pd.testing.assert_frame_equal(report.errors, with_them.errors.loc[["mLSTMTime"]])
    assert "SeasonalNaive" not in str(report)


def test_series_without_truth_at_a_cutoff_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    naive_network(monkeypatch)
    table = rich_stores(40, ("a",))
    table.loc[table["date"].between("2024-02-04", "2024-02-06"), "sales"] = np.nan
    result = tiny().backtest(table, cutoffs=3).forecasts
    # The horizon of the middle cutoff, February 4 to 6, has no value.
    assert result["cutoff"].unique().tolist() == [
        pd.Timestamp("2024-01-31"),
        pd.Timestamp("2024-02-06"),
    ]


def test_backtest_leaves_the_forecaster_unfitted() -> None:
    forecaster = tiny()
    with pytest.raises(InputError, match="cutoffs 9, 3 steps apart.*choose at most 8"):
        forecaster.backtest(rich_stores(30), cutoffs=9)
    with pytest.raises(InputError, match="not fitted"):
        forecaster.predict()


def test_cutoffs_end_where_most_series_have_values() -> None:
    values = [np.arange(40.0), np.arange(38.0), np.append(np.arange(34.0), [np.nan] * 6)]
    series = panel_of_values(*values)
    assert series.ends.tolist() == [40, 40, 34]
    assert choose_cutoffs(series, 5, 3, 2) == [31, 33, 35]
