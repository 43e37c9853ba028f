"""The forecaster of sktime: the numbers of `Forecaster`, in the layout and the words of sktime."""

import importlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers.forecasters import TINY
from helpers.products import spread
from helpers.sktime_data import make_exogenous, make_panel, make_series, use_naive_forecaster
from pytorch_forecasting_mlstm import Forecaster, InputError

pytest.importorskip("sktime.forecasting", reason="needs the extra 'sktime'")

from sktime.base import load  # noqa: E402
from sktime.datasets import load_airline, load_longley  # noqa: E402
from sktime.forecasting.base import ForecastingHorizon  # noqa: E402

from pytorch_forecasting_mlstm.sktime import MLSTMForecaster  # noqa: E402

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
DAYS = pd.date_range("2024-01-01", periods=40)


def tiny(**parameters: Any) -> MLSTMForecaster:
    """Return a forecaster that is fitted in a second."""
    return MLSTMForecaster(**{**MLSTMForecaster.get_test_params()[0], **parameters})


def plain(horizon: int, **parameters: Any) -> Forecaster:
    """Return the same forecaster of tables."""
    given = {"time": "date", "target": "sales", "quantiles": LEVELS, **TINY}
    return Forecaster(horizon, **{**given, **parameters})


@pytest.fixture
def naive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forecast the last observed value."""
    use_naive_forecaster(monkeypatch)


@pytest.fixture(scope="module")
def airline() -> MLSTMForecaster:
    """Return a fitted forecaster that no test changes."""
    return tiny().fit(load_airline(), fh=[1, 2, 3])


@pytest.fixture(autouse=True)
def no_side_effects(airline: MLSTMForecaster) -> Iterator[None]:
    expected = airline.predict()
    yield
    pd.testing.assert_series_equal(airline.predict(), expected)


def test_forecasts_equal_those_of_the_forecaster() -> None:
    y = make_series(DAYS)
    X = make_exogenous(y.index, ahead=3)
    table = X.join(y).rename_axis("date").reset_index()
    expected = plain(3, known=list(X.columns)).fit(table[:40]).predict(table)

    forecaster = tiny(random_state=0).fit(y, X[:40], fh=[1, 3])
    forecast = forecaster.predict(X=X[40:])
    assert forecast.name == "sales"
    assert list(forecast.index) == list(expected.date[[0, 2]])
    np.testing.assert_array_equal(forecast, expected.prediction[[0, 2]])
    quantiles = forecaster.predict_quantiles(X=X[40:], alpha=[0.95, 0.05])
    assert list(quantiles.columns) == [("sales", 0.95), ("sales", 0.05)]
    np.testing.assert_array_equal(quantiles, expected.loc[[0, 2], ["q0.95", "q0.05"]])
    intervals = forecaster.predict_interval(X=X[40:], coverage=[0.5, 0.9])
    np.testing.assert_array_equal(
        intervals, expected.loc[[0, 2], ["q0.25", "q0.75", "q0.05", "q0.95"]]
    )


def test_forecasts_of_a_hierarchy_with_two_targets_equal_those_of_the_forecaster() -> None:
    y = make_panel({("north", 7): 30, ("north", 3): 30, ("south", 7): 30})
    y["visits"] = y["sales"].to_numpy()[::-1]
    table = y.reset_index()
    roles = {"group": ["region", "store"], "target": ["sales", "visits"]}
    expected = plain(2, **roles, seed=3).fit(table).predict()
    expected = expected.pivot(index=["region", "store", "date"], columns="target")

    forecaster = tiny(random_state=3).fit(y, fh=[1, 2])
    forecast = forecaster.predict()
    assert forecast.index.names == y.index.names
    assert list(forecast.columns) == ["sales", "visits"]
    pd.testing.assert_frame_equal(
        forecast.sort_index(), expected["prediction"], check_names=False, check_freq=False
    )
    quantiles = forecaster.predict_quantiles(alpha=[0.25]).sort_index()
    for target in ("sales", "visits"):
        np.testing.assert_array_equal(quantiles[target, 0.25], expected["q0.25"][target])


def test_update_equals_that_of_the_forecaster() -> None:
    y = make_series(DAYS)
    table = y.rename_axis("date").reset_index()
    expected = plain(2).fit(table[:30])
    forecaster = tiny(update_epochs=2).fit(y[:30], fh=[1, 2])

    forecaster.update(y[30:35], update_params=False)
    np.testing.assert_array_equal(forecaster.predict(), expected.predict(table[:35]).prediction)
    forecaster.update(y[35:])
    expected.update(table[35:], epochs=2)
    np.testing.assert_array_equal(forecaster.predict(), expected.predict(table).prediction)
    assert forecaster.cutoff[0] == y.index[-1]


@pytest.mark.usefixtures("naive")
def test_random_state_is_the_seed() -> None:
    y = make_series(DAYS)
    state = np.random.RandomState(5)
    seeds = [tiny(random_state=seed).fit(y, fh=1).forecaster_.seed for seed in (7, state, state)]
    assert seeds[0] == 7
    assert seeds[1] != seeds[2]


INDICES = {
    "range": pd.RangeIndex(5, 35),
    "int": pd.Index(range(100, 130)),
    "days": pd.date_range("2024-01-01", periods=30),
    "business days": pd.date_range("2024-01-01", periods=30, freq="B"),
    "month ends": pd.date_range("2020-01-31", periods=30, freq="ME"),
    "every other hour": pd.date_range("2024-01-01", periods=30, freq="2h"),
    "local hours": pd.date_range("2024-03-30", periods=30, freq="h", tz="Europe/Berlin"),
    "months": pd.period_range("2020-01", periods=30, freq="M"),
    "weeks": pd.period_range("2020-01-01", periods=30, freq="W-WED"),
    "half years": pd.period_range("2020Q1", periods=30, freq="2Q"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # sktime makes periods of business days
@pytest.mark.filterwarnings("ignore:Converting to PeriodArray")  # likewise, of local hours
@pytest.mark.usefixtures("naive")
@spread("index, is_relative", INDICES, [True, False])
def test_times_are_those_of_the_horizon(index: pd.Index, is_relative: bool) -> None:
    y = make_series(index)[:-4]
    if not is_relative and isinstance(index, pd.DatetimeIndex):
        fh = ForecastingHorizon(index[[-3, -1]], is_relative=False, freq=index.freq)
    else:
        fh = ForecastingHorizon([2, 4] if is_relative else index[[-3, -1]], is_relative=is_relative)
    forecast = tiny().fit(y, fh=fh).predict()
    assert list(forecast.index) == [index[-3], index[-1]]
    assert forecast.index.dtype == index.dtype
    assert list(forecast) == [pytest.approx(y.iloc[-1])] * 2


@pytest.mark.usefixtures("naive")
def test_relative_steps_are_counted_from_the_end_of_each_series() -> None:
    y = make_panel({"a": 30, "b": 35, "c": 33})
    forecast = tiny().fit(y, fh=[1, 3]).predict()
    last = y.reset_index("date").groupby("store").last()
    for store in "abc":
        begin = last.date[store]
        expected = [begin + pd.Timedelta(days=1), begin + pd.Timedelta(days=3)]
        assert list(forecast.loc[store].index) == expected
        assert list(forecast.loc[store, "sales"]) == [pytest.approx(last.sales[store])] * 2


@pytest.mark.usefixtures("naive")
@pytest.mark.filterwarnings("ignore:.*feeds forecasts back")
def test_absolute_times_are_the_same_for_all_series() -> None:
    y = make_panel({"a": 33, "b": 35})
    day = pd.DatetimeIndex(["2024-02-06"], freq="D")
    forecast = tiny().fit(y, fh=ForecastingHorizon(day, is_relative=False)).predict()
    assert list(forecast.index) == [("a", day[0]), ("b", day[0])]


@pytest.mark.usefixtures("naive")
def test_missing_targets_at_the_end_are_forecast_and_left_out() -> None:
    y = make_series(DAYS)
    y.iloc[[0, 1, 9, -2, -1]] = np.nan
    X = make_exogenous(y.index, ahead=2)
    forecast = tiny().fit(y, X[:40], fh=[1, 2]).predict(X=X[40:])
    assert list(forecast.index) == list(X.index[40:])
    assert list(forecast) == [pytest.approx(y.iloc[-3])] * 2


@pytest.mark.usefixtures("naive")
def test_series_that_end_earlier_need_no_covariates_beyond_their_horizon() -> None:
    y = make_panel({"a": 30, "b": 30})
    y.loc[("a", slice("2024-01-28", None)), "sales"] = np.nan
    X = make_panel({"a": 32, "b": 32}, length=32).rename(columns={"sales": "price"})
    past = X.index.isin(y.index)
    forecast = tiny().fit(y, X[past], fh=[1, 2]).predict(X=X[~past])
    assert list(forecast.index) == list(X[~past].index)


@pytest.mark.usefixtures("naive")
def test_covariates_ahead_may_be_given_to_fit() -> None:
    y = make_series(DAYS)
    X = make_exogenous(y.index, ahead=5)
    forecaster = tiny().fit(y, X, fh=[2])
    pd.testing.assert_series_equal(forecaster.predict(), forecaster.predict(X=X))


@pytest.mark.usefixtures("naive")
def test_a_cutoff_in_the_past_hides_what_came_after_it() -> None:
    y = make_series(DAYS)
    forecaster = tiny().fit(y, fh=[1, 2])
    forecaster.update(y[:20], update_params=False)
    forecast = forecaster.predict()
    assert list(forecast.index) == list(y.index[20:22])
    assert list(forecast) == [pytest.approx(y.iloc[19])] * 2


@pytest.mark.usefixtures("naive")
@pytest.mark.parametrize("update_params", [True, False])
def test_update_adds_new_series(update_params: bool) -> None:
    y = make_panel({"a": 30, "b": 30})
    new = make_panel({"c": 30})
    forecaster = tiny().fit(y, fh=[1]).update(new, update_params=update_params)
    assert list(forecaster.predict().index.get_level_values(0)) == ["a", "b", "c"]


@pytest.mark.usefixtures("naive")
def test_names_that_the_table_could_not_have() -> None:
    y = make_panel({(3, "x"): 30, (1, "__total"): 30})
    y.index.names = ["prediction", None, "q0.5"]
    y = y.set_axis([0], axis=1).assign(target=1.0)
    X = y.set_axis(["target", 0], axis=1)
    late = y.index.get_level_values(-1) == y.index[-1][-1]
    forecast = tiny().fit(y[~late], X[~late], fh=[1]).predict(X=X[late])
    pd.testing.assert_index_equal(forecast.index, y[late].index)
    assert list(forecast.columns) == [0, "target"]


def test_interpolated_quantiles_say_so(airline: MLSTMForecaster) -> None:
    with pytest.warns(UserWarning, match=r"at 0.3, 0.99 were not learned, .* in quantiles"):
        guessed = airline.predict_quantiles(alpha=[0.25, 0.3, 0.5, 0.95, 0.99])
    assert (np.diff(guessed) > 0).all()
    learned = airline.predict_quantiles(alpha=[0.25, 0.5])
    between = learned.to_numpy() @ [0.8, 0.2]
    np.testing.assert_allclose(guessed.iloc[:, 1], between, rtol=1e-6)


def test_no_quantile_is_below_the_minimum(
    airline: MLSTMForecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert airline.forecaster_.minimum_ == 0  # passengers are whole numbers
    lowest = airline.predict_quantiles(alpha=[0.05]).to_numpy().min()
    monkeypatch.setattr(Forecaster, "minimum_", lowest)
    with pytest.warns(UserWarning, match="at 0.01 were not learned"):
        assert airline.predict_quantiles(alpha=[0.01]).to_numpy().min() == lowest


def test_predict_var_is_finite(airline: MLSTMForecaster) -> None:
    assert (airline.predict_var().to_numpy() > 0).all()


@pytest.mark.usefixtures("naive")
def test_errors_name_the_arguments_of_sktime() -> None:
    y = make_series(DAYS)
    X = make_exogenous(y.index, ahead=2)
    with pytest.raises(InputError, match=r"^MLSTMForecaster: .*X lacks .* as X, .* smaller fh$"):
        tiny().fit(y, X[:40], fh=[1, 2]).predict(X=X[41:])
    with_X = tiny().fit(y, X[:40], fh=[2])
    with pytest.raises(InputError, match=r"evaluate, searches and ForecastX .*: use fh 1, 2, …, n"):
        with_X.predict(X=X[41:])
    with pytest.raises(InputError, match="X lacks 'price'"):
        with_X.predict()
    with pytest.raises(InputError, match="X has no column 'promo', .* columns are 'price', 'kind'"):
        with_X.predict(X=X[40:].drop(columns="promo"))
    with pytest.raises(InputError, match="X is given, but was not in fit"):
        tiny().fit(y, fh=[2]).predict(X=X[40:])
    with pytest.raises(InputError, match="random_state must be a whole number"):
        tiny(random_state=-1).fit(y, fh=[1])
    with pytest.raises(InputError, match=r"^MLSTMForecaster: quantiles must be numbers"):
        tiny(quantiles="many").fit(y, fh=[1])
    with pytest.raises(InputError, match="two levels at least .* 0.95, got 0.5 alone"):
        tiny(quantiles=[0.5]).fit(y, fh=[1]).predict_quantiles(alpha=[0.95])


@pytest.mark.usefixtures("naive")
@pytest.mark.parametrize("missing", [0, 2])
def test_days_with_a_gap_are_days(missing: int) -> None:
    y = make_series(DAYS).drop(DAYS[17])
    y.iloc[len(y) - missing :] = np.nan
    forecast = tiny().fit(y, fh=[2]).predict()
    assert forecast.index[0] == DAYS[-1] + pd.Timedelta(days=2)
    assert forecast.iloc[0] == pytest.approx(y.dropna().iloc[-1])


HOLIDAYS = pd.bdate_range("2015-01-01", periods=70).delete([5, 9, 20, 21, 33, 34, 50, 51, 60])


@pytest.mark.usefixtures("naive")
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
@pytest.mark.parametrize("missing", [0, 2, 12])  # twelve rows reach back over a holiday
def test_holidays_are_no_steps(missing: int, zone: str | None) -> None:
    y = make_series(HOLIDAYS.tz_localize(zone))
    y.iloc[len(y) - missing :] = np.nan
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*feeds forecasts back")
        forecast = tiny().fit(y, fh=[1, 3]).predict()
    ahead = pd.bdate_range(HOLIDAYS[-1], periods=4, tz=zone)
    assert list(forecast.index) == [ahead[1], ahead[3]]
    assert list(forecast) == [pytest.approx(y.dropna().iloc[-1])] * 2


@pytest.mark.usefixtures("naive")
def test_rows_are_replaced_by_missing_values() -> None:
    y = make_panel({"a": 30, "b": 30})
    forecaster = tiny().fit(y, fh=[1])
    correction = y.loc[["a"]].tail(2) * np.nan
    forecaster.update(correction, update_params=False)
    expected = [y.loc["a", "sales"].iloc[-3], y.loc["b", "sales"].iloc[-1]]
    np.testing.assert_allclose(forecaster.predict()["sales"], expected, rtol=1e-6)


@pytest.mark.usefixtures("naive")
def test_covariates_are_replaced_by_missing_values() -> None:
    y = make_series(DAYS)
    X = make_exogenous(y.index, ahead=2)
    forecaster = tiny().fit(y, X, fh=[1, 2])
    plan = X[40:].astype({"price": float})
    plan.iloc[0, 0] = np.nan
    with pytest.raises(InputError, match="'price'"):
        forecaster.predict(X=plan)
    forecaster.predict()  # the plan is not kept
    forecaster.update(y[39:], X[39:], update_params=False)
    forecaster.update(y[39:] + 1, update_params=False)  # covariates stay
    assert list(forecaster.predict()) == [pytest.approx(y.iloc[-1] + 1)] * 2
    forecaster.update(y[39:], pd.concat([X[39:40], plan]), update_params=False)
    with pytest.raises(InputError, match="'price'"):
        forecaster.predict()


@pytest.mark.usefixtures("naive")
def test_each_column_has_a_minimum_of_its_own() -> None:
    rng = np.random.default_rng(0)
    counts = 3.0 * (rng.random(40) < 0.2)
    y = pd.DataFrame({"count": counts, "cold": rng.normal(-100, 30, 40)})
    forecaster = tiny(calibrate=False).fit(y, fh=[1, 2])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*were not learned")
        lowest = forecaster.predict_quantiles(alpha=[0.001, 0.05])
    assert lowest["count"].to_numpy().min() == 0
    assert lowest["cold"].to_numpy().max() < -50
    median = forecaster.predict()
    assert (median["count"] >= 0).all()
    # sizes near 0 may be negative beside counts that may not
    y = pd.DataFrame({"count": counts, "size": rng.normal(0.5, 0.1, 40)})
    forecaster = tiny(calibrate=False).fit(y, fh=[1])
    assert list(forecaster._lower_bounds) == [0, -np.inf]
    assert forecaster.forecaster_.minimum_ == -np.inf
    forecaster.update(pd.DataFrame({"count": [-1.0], "size": [0.5]}, index=[40]))
    assert list(forecaster._lower_bounds) == [-np.inf, -np.inf]


@pytest.mark.usefixtures("naive")
def test_update_epochs_are_checked_in_fit() -> None:
    with pytest.raises(InputError, match=r"update_epochs must be a whole number.* got 0"):
        tiny(update_epochs=0).fit(make_series(DAYS), fh=[1])


@pytest.mark.usefixtures("naive")
def test_times_of_another_kind_are_refused() -> None:
    local = make_series(DAYS.tz_localize("Europe/Berlin"))
    forecaster = tiny().fit(local, fh=[1])
    with pytest.raises(InputError, match="y are timestamps without a time zone, but .* with a"):
        forecaster.update(make_series(DAYS[-2:]), update_params=False)
    expected = forecaster.predict()
    forecaster.update(local[-2:].tz_convert("UTC"), update_params=False)
    pd.testing.assert_series_equal(forecaster.predict(), expected)
    months = make_series(pd.period_range("2020-01", periods=30, freq="M"))
    forecaster = tiny().fit(months, fh=[1])
    with pytest.raises(InputError, match="y are whole numbers, but were periods of M"):
        forecaster.update(make_series(pd.RangeIndex(40, 42)), update_params=False)


@pytest.mark.usefixtures("naive")
def test_rows_of_the_same_time_are_refused() -> None:
    y = make_series(pd.RangeIndex(30))
    with pytest.raises(InputError, match="several rows of y have the same time, 29: leave one"):
        tiny().fit(pd.concat([y, y[-1:]]), fh=[1])
    X = pd.DataFrame({"price": np.arange(32.0)})
    forecaster = tiny().fit(y, X[:30], fh=[1, 2])
    with pytest.raises(InputError, match="several rows of X have the same time, 31"):
        forecaster.predict(X=X.loc[[30, 31, 31]])


@pytest.mark.usefixtures("naive")
def test_times_between_two_steps_are_refused() -> None:
    y = make_series(DAYS)
    fh = ForecastingHorizon(pd.DatetimeIndex(["2024-02-12 07:00"]), is_relative=False, freq="D")
    with pytest.raises(InputError, match="07:00.* does not lie whole steps of y .daily"):
        tiny().fit(y, fh=fh)


def test_fitted_forecaster_can_be_saved_without_code(
    airline: MLSTMForecaster, tmp_path: Path
) -> None:
    airline.save(str(tmp_path / "pickle"))
    pd.testing.assert_series_equal(load(str(tmp_path / "pickle")).predict(), airline.predict())
    airline.forecaster_.save(tmp_path / "model.ckpt")
    loaded = Forecaster.load(tmp_path / "model.ckpt").predict()
    np.testing.assert_array_equal(loaded.prediction, airline.predict())


def test_fitted_params_tell_what_was_chosen(airline: MLSTMForecaster) -> None:
    params = airline.get_fitted_params(deep=False)
    assert (params["history"], params["epochs"]) == (4, 1)
    assert params["forecaster"] is airline.forecaster_


@pytest.mark.usefixtures("naive")
def test_real_covariates_of_sktime() -> None:
    y, X = load_longley()
    forecast = tiny().fit(y[:-2], X[:-2], fh=[1, 2]).predict(X=X[-2:])
    assert list(forecast.index) == list(y.index[-2:])


def test_without_sktime_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    package = "pytorch_forecasting_mlstm.sktime"
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sktime", None)
    with pytest.raises(ModuleNotFoundError, match=r"pytorch-forecasting-mlstm\[sktime\]") as caught:
        importlib.import_module(package)
    assert "\n" not in str(caught.value)
