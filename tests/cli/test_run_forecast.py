"""Tables of many kinds give tidy forecasts with the right times and names."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from helpers.command_line import FAST, QUANTILES, SALES, Forecast, run, shorten_epochs
from helpers.tables import daily, noisy_season, stores
from pytorch_forecasting_mlstm import Forecaster


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


def test_run_forecast_is_that_of_the_forecaster(
    daily_forecast: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line is a shell: the same settings in Python give the same numbers."""
    shorten_epochs(monkeypatch)
    forecaster = Forecaster(
        3, time="date", target="sales", epochs=1, history=9, seed=0, verbose=False
    )
    with pytest.warns(UserWarning, match="interval of mLSTMTime"):
        forecaster.fit(daily(), cutoffs="auto")
    pd.testing.assert_frame_equal(forecaster.predict(), daily_forecast)


def test_run_forecast_is_determined_by_the_seed(
    forecast: Forecast, daily_forecast: pd.DataFrame
) -> None:
    another_seed = forecast(daily(60), "date", "sales", 3, "--seed", "1")
    assert (daily_forecast["prediction"] != another_seed["prediction"]).any()


def test_run_forecast_of_a_saved_model(saved: Path, tmp_path: Path) -> None:
    """It needs no options and trains nothing; options that say the same are accepted."""
    first = (saved / "forecast.csv").read_text()
    again = [str(saved / "t.csv"), "--model", str(saved / "m.model"), "--output", str(tmp_path)]
    code, printed, errors = run(*again, "--group", "store", "--target", "sales", "--seed", "0")
    assert (code, errors) == (0, "")
    assert "m.model, without training" in printed
    assert (tmp_path / "forecast.csv").read_text() == first
    assert imread(tmp_path / "forecast.png").shape[1] == 1620
    code, _, errors = run(*again[1:], "--horizon", "2")  # after its own rows
    assert (code, errors) == (0, "")
    shorter = pd.read_csv(tmp_path / "forecast.csv", dtype=str, keep_default_na=False)
    assert shorter["date"].tolist() == ["2024-04-28", "2024-04-29"] * 2
    assert Forecaster.load(saved / "m.model").verbose, "as in Python"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--time", "day"), "--time day contradicts --model, which has date: leave it out"),
        (("--target", "visits"), "--target ['visits'] contradicts --model, which has ['sales']"),
        (("--seed", "1"), "--seed 1 contradicts --model, which has 0"),
        (("--epochs", "2"), "--epochs 2 contradicts --model, which has 1"),
        (("--past", "rain"), "--past ['rain'] contradicts --model, which was fitted without it"),
        (("--minimum", "none"), "--minimum None contradicts --model, which has auto"),
        (("--quantiles", "0.2"), "--quantiles [0.2] contradicts --model, which has (0.1, 0.5, 0"),
    ],
)
def test_run_forecast_option_that_contradicts_the_model(
    fail, saved: Path, option: tuple[str, str], message: str
) -> None:
    assert message in fail(str(saved / "t.csv"), "--model", str(saved / "m.model"), *option)


def test_run_forecast_rejects_a_model_that_is_none(fail) -> None:
    Path("m.model").write_text("no model")
    assert "'m.model' cannot be read: " in fail("t.csv", "--model", "m.model")


def test_run_forecast_plan_in_a_file(fail, saved: Path, tmp_path: Path) -> None:
    """The known columns of the horizon may stand in a file of their own."""
    table = pd.read_csv(saved / "t.csv", dtype={"store": str}, keep_default_na=False)
    ahead = table["sales"] == ""
    table[~ahead].to_csv("past.csv", index=False)
    table[ahead].drop(columns="sales").to_excel("plan.xlsx", index=False)
    model = ("--model", str(saved / "m.model"), "--output", str(tmp_path / "out"))
    assert "as --future" in fail("past.csv", *model[:2])
    code, _, errors = run("past.csv", *model, "--future", "plan.xlsx")
    assert (code, errors) == (0, "")
    assert (tmp_path / "out" / "forecast.csv").read_text() == (saved / "forecast.csv").read_text()
    shutil.rmtree(tmp_path / "out")
    message = fail("past.csv", *SALES, "--known", "price", "--group", "store")
    assert "pass rows for all 7 steps to forecast" in message, "said before the training"


def test_run_forecast_uses_past_static_and_several_targets(forecast: Forecast) -> None:
    table = stores({"a": 60, "b": 50}).assign(rain=noisy_season(110), visits=lambda t: t["sales"])
    table["kind"] = np.where(table["store"] == "a", "big", "small")
    options = ("--target", "visits", "--past", "rain", "--static", "kind", "--group", "store")
    result = forecast(table, "date", "sales", 3, *options, "--quantiles", "0.25", "0.75")
    assert result.columns.tolist()[2:] == ["target", "prediction", "q0.25", "q0.5", "q0.75"]
    assert result["target"].tolist() == (["sales"] * 3 + ["visits"] * 3) * 2


def test_run_forecast_months_gaps_and_a_minimum(forecast: Forecast) -> None:
    """Months come back as they came; missing ones are filled; no forecast is below the minimum."""
    months = pd.period_range("2019-01", periods=60, freq="M").strftime("%Y%m")
    table = pd.DataFrame({"month": months, "sales": noisy_season(60, 12)}).drop([7, 8, 31])
    result = forecast(table, "month", "sales", 2, "--fill", "0", "--minimum", "75.5")
    assert result["month"].tolist() == ["202401", "202402"]
    assert (result[QUANTILES] >= 75.5).all(axis=None)


def test_run_forecast_local_times_over_a_clock_change(fail, forecast: Forecast) -> None:
    """The message names summer time and the option, which settles it."""
    hours = pd.date_range("2024-10-24", "2024-10-31", freq="h", tz="Europe/Berlin")
    local = hours.tz_localize(None).strftime("%Y-%m-%d %H:%M")
    table = pd.DataFrame({"hour": local, "load": noisy_season(len(local), 24)})
    options = ("--time", "hour", "--target", "load", "--horizon", "3")
    message = fail("sales.csv", *options, table=table)
    assert "2024-10-27 02:00:00 occurs twice in a series, when summer time changes" in message
    assert "give the zone of local times as --timezone, such as" in message
    result = forecast(table, "hour", "load", 3, "--timezone", "Europe/Berlin")
    assert result["hour"].tolist() == ["2024-10-31 01:00", "2024-10-31 02:00", "2024-10-31 03:00"]


def test_run_forecast_trading_days_with_holidays(forecast: Forecast) -> None:
    days = pd.bdate_range("2024-02-01", "2024-04-30").strftime("%Y-%m-%d")
    days = days.drop(["2024-03-29", "2024-04-01"])
    Path("days.txt").write_text("2024-03-29\n2024-04-01\n2024-05-01\n")
    table = pd.DataFrame({"day": days, "price": noisy_season(len(days), 5)})
    result = forecast(table, "day", "price", 2, "--holidays", "days.txt", "--frequency", "B")
    assert result["day"].tolist() == ["2024-05-02", "2024-05-03"]


def test_run_forecast_tests_as_many_cutoffs_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test does not change the fit, and says in words that an interval does not hold."""
    shorten_epochs(monkeypatch)
    monkeypatch.chdir(tmp_path)
    daily(200).to_csv("t.csv", index=False)
    code, printed, notes = run("t.csv", *SALES, *FAST, "--cutoffs", "4")
    assert code == 0
    assert "t.csv: 200 rows" in printed
    assert "History: 9 steps; epochs: 1" in printed
    assert "Backtest of sales: 4 cutoffs, 7 steps ahead" in printed
    assert "SeasonalNaive" in printed
    assert printed.splitlines()[-1] == "Wrote forecast.csv, forecast.png: 7 rows"
    for line in notes.splitlines():
        assert line.startswith("note: the 80 % interval of mLSTMTime holds ")


def test_run_forecast_of_a_short_table_has_no_test(forecast: Forecast) -> None:
    assert len(forecast(daily(20), "date", "sales", 7, "--history", "3")) == 7


def test_run_forecast_prints_doubts_as_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_epochs(monkeypatch)
    monkeypatch.chdir(tmp_path)
    table = daily(100)
    table.loc[95, "sales"] = 1e9
    table.to_csv("t.csv", index=False)
    code, _, notes = run("t.csv", *SALES, *FAST)
    assert code == 0
    assert notes.count("1e+09") + notes.count("1,000,000,000") == 1, notes
    assert all(line.startswith("note: ") for line in notes.splitlines())
    assert pd.read_csv("forecast.csv")["prediction"].between(0, 200).all()


def test_run_forecast_draws_some_of_many_series(forecast: Forecast) -> None:
    table = stores({f"${k} {'long name ' * 9}": 40 for k in range(8)})
    assert len(forecast(table, "date", "sales", 7, "--group", "store")) == 8 * 7
    assert imread("forecast.png").shape[0] > 900, "two rows of panels"
