"""The effect of the days and weekends of a month is found where it is, and comes back."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers.forecasters import tiny
from pytorch_forecasting_mlstm.forecaster import Forecaster
from pytorch_forecasting_mlstm.forecaster.panel.panel import Panel
from pytorch_forecasting_mlstm.forecaster.reading import TableReader
from pytorch_forecasting_mlstm.forecaster.training.calendar_effects.trading_days import TradingDays
from pytorch_forecasting_mlstm.forecaster.training.scaling import Scaling

WEEKEND = 0.5  # of what a day from Monday to Friday sells


def sums(periods: int, stores: int, noise: float = 0.02, start: str = "2012-01-01") -> pd.DataFrame:
    """Return monthly sums of days, of which those of weekends are `WEEKEND` times as large."""
    days = pd.date_range(start, periods=31 * periods)
    rng = np.random.default_rng(0)
    parts = []
    for number in range(stores):
        weights = np.where(days.dayofweek < 5, 1.0, WEEKEND)
        daily = pd.Series(weights * (5 + number) * (1 + np.arange(len(days)) / 5000), index=days)
        monthly = daily.resample("MS").sum()[:periods]
        monthly *= np.exp(noise * rng.normal(size=periods))
        monthly *= 1 + 0.2 * np.sin(2 * np.pi * monthly.index.month / 12)
        parts.append(
            pd.DataFrame(
                {"store": f"s{number}", "date": monthly.index, "sales": monthly.to_numpy()}
            )
        )
    return pd.concat(parts, ignore_index=True)


def means(periods: int, stores: int, level: float = 290) -> pd.DataFrame:
    """Return monthly means of a temperature, in Kelvin unless the level is another."""
    table = sums(periods, stores)
    rng = np.random.default_rng(1)
    season = 10 * np.sin(2 * np.pi * table["date"].dt.month / 12)
    return table.assign(
        store="t" + table["store"], sales=level + season + rng.normal(size=len(table))
    )


def panel_of(table: pd.DataFrame) -> Panel:
    read = TableReader(tiny().get_params()).read(table)
    return read.panel


def fit(table: pd.DataFrame, held_out: int = 0) -> TradingDays | None:
    return TradingDays.fit(panel_of(table), held_out)


def scaled_of(scaling: Scaling, panel: Panel) -> np.ndarray:
    return scaling.scale(scaling.without_effects(panel))


def month_factors(days: TradingDays, panel: Panel, count: int) -> np.ndarray:
    return days.factors(panel.axis, np.arange(count), np.zeros(count, dtype=int))


def test_effect_of_weekends_is_that_of_the_sums() -> None:
    """Factors are the sums of the months, relative to a month of average length and weekends."""
    table = sums(120, 5)
    days = fit(table)
    assert days is not None and days.follows.all()
    expected = []
    for month in pd.period_range("2012-01", periods=120, freq="M"):
        dates = pd.date_range(month.start_time, periods=month.days_in_month)
        expected.append(np.where(dates.dayofweek < 5, 1.0, WEEKEND).sum())
    mean = (5 + 2 * WEEKEND) / 7 * 365.25 / 12
    factors = month_factors(days, panel_of(table), 120)
    assert np.abs(factors - np.array(expected) / mean).max() < 0.004
    assert np.ptp(factors) > 0.1  # most of it for the length of February


@pytest.mark.parametrize("stores", [1, 20])
def test_means_have_no_effect(stores: int) -> None:
    assert fit(means(120, stores)) is None


@pytest.mark.parametrize("process", ["noise", "seasonal random walk", "counts"])
def test_effect_is_rarely_found_by_chance(process: str) -> None:
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(200):
        if process == "noise":
            values = rng.lognormal(3, 0.3, 72)
        elif process == "counts":
            values = rng.poisson(1, 72)
        else:
            values = np.exp(3 + np.cumsum(0.1 * rng.normal(size=(6, 12)), axis=0)).ravel()
        found += fit(sums(72, 1).assign(sales=values)) is not None
    assert found <= 6


@pytest.mark.parametrize("count", [1, 5])
def test_smooth_series_do_not_decide_alone(count: int) -> None:
    """Price indices hardly vary, and would have all the weight."""
    index = means(120, count)
    trend = 1.002 ** np.tile(np.arange(120), count)
    index["sales"] = 100 * trend * np.exp(1e-4 * np.random.default_rng(0).normal(size=len(index)))
    days = fit(pd.concat([sums(120, 20), index], ignore_index=True))
    assert days is not None and -0.66 < days.weekend < -0.5
    assert days.follows.tolist() == [True] * 20 + [False] * count


def test_values_around_zero_have_no_effect_and_pass_none_on() -> None:
    """Relative to a mean of nearly 0, any change is large."""
    flows = sums(100, 1)
    flows["sales"] -= 0.99 * flows["sales"].mean()
    short = sums(100, 2)[lambda t: (t["store"] == "s1") & (t["date"] >= "2019-06-01")]
    assert fit(pd.concat([flows, short], ignore_index=True)) is None


def test_means_among_sums_are_left_as_they_are() -> None:
    table = pd.concat([sums(120, 8), means(120, 4, level=60)], ignore_index=True)
    days = fit(table)
    assert days is not None
    assert days.follows.tolist() == [True] * 8 + [False] * 4
    panel = panel_of(table)
    scaled = scaled_of(Scaling.fit(panel), panel)
    temperatures = panel.target[panel.series >= 8].reshape(4, -1)
    expected = (temperatures - temperatures.mean(1, keepdims=True)) / temperatures.std(
        1, keepdims=True
    )
    np.testing.assert_allclose(scaled[panel.series >= 8].reshape(4, -1), expected)


@pytest.mark.parametrize("frequency", ["QS", "W", "D", "YS"])
def test_other_steps_have_no_effect(frequency: str) -> None:
    table = sums(120, 1)
    dates = pd.date_range("1950-01-01", periods=120, freq=frequency)
    assert fit(table.assign(date=dates)) is None


@pytest.mark.parametrize("frequency", ["ME", "BMS"])
def test_any_stamp_of_a_month_stands_for_it(frequency: str) -> None:
    table = sums(96, 3)
    dates = pd.date_range("2012-01-01", periods=96, freq=frequency)
    other, days = fit(table.assign(date=np.tile(dates, 3))), fit(table)
    assert days is not None and other is not None
    assert other.weekend == pytest.approx(days.weekend)


@pytest.mark.parametrize("begin", ["2012-01-01", "2018-06-01"])
def test_held_out_rows_decide_nothing(begin: str) -> None:
    """So do those of a series that is held out as a whole."""
    table = sums(96, 4)
    table = table[(table["store"] != "s3") | (table["date"] >= begin)]
    last = table["date"] >= "2018-01-01"
    days = fit(table, held_out=24)
    changed = fit(table.assign(sales=table["sales"].where(~last, 7.0)), held_out=24)
    assert days is not None and changed is not None and changed.weekend == days.weekend
    assert changed.follows.tolist() == days.follows.tolist()


def test_missing_and_constant_and_short_series() -> None:
    table = sums(96, 6, noise=0.005)
    rng = np.random.default_rng(0)
    table.loc[rng.choice(len(table), 60, replace=False), "sales"] = np.nan
    table.loc[table["store"] == "s1", "sales"] = 5.0
    table.loc[table["store"] == "s2", "sales"] *= -1
    table = table[(table["store"] != "s3") | (table["date"] >= "2019-06-01")]
    days = fit(table)
    assert days is not None and -0.75 < days.weekend < -0.45
    assert days.follows.tolist() == [True, False, False, True, True, True]


@pytest.mark.parametrize("factor", [1e-290, 1e290])
def test_size_of_the_numbers_does_not_matter(factor: float) -> None:
    table = sums(96, 3)
    days, other = fit(table), fit(table.assign(sales=table["sales"] * factor))
    assert days is not None and other is not None
    assert other.weekend == pytest.approx(days.weekend) and other.follows.all()


def test_forecasts_come_back_with_the_effect_of_their_months() -> None:
    table = sums(108, 4)
    panel = panel_of(table[table["date"] < "2020-01-01"])
    scaling = Scaling.fit(panel)
    later = panel_of(table)
    future = later.target.reshape(4, 108)[:, 96:]
    scaled = scaled_of(scaling, later).reshape(4, 108)[:, 96:]
    forecast = np.stack([scaled - 1, scaled, scaled + 1], axis=-1)
    result = scaling.unscale(forecast, panel)
    np.testing.assert_allclose(result[..., 1], future)
    assert (np.diff(result, axis=-1) > 0).all()


def test_new_series_are_measured() -> None:
    panel = panel_of(sums(96, 3))
    scaling = Scaling.fit(panel)
    assert len(scaling.effects) == 1
    both = pd.concat([sums(96, 1), means(96, 1), sums(6, 2)[lambda t: t["store"] == "s1"]])
    here = scaling.match(panel_of(both), np.array([3, 4, 5]))
    grown = scaling.append(here, np.array([False, True, True]))
    (grown_effect,), (new_effect,) = grown.effects, here.effects
    assert grown_effect.follows.shape == grown.center.shape == (5,)
    assert grown_effect.follows[3:].tolist() == new_effect.follows[1:].tolist()


def errors(**parameters: Any) -> float:
    table = sums(100, 3, noise=0.002)
    past = table[table["date"] < "2019-05-01"]
    forecaster = tiny(horizon=12, history=24, **parameters).fit(past)
    forecast = forecaster.predict().merge(table, on=["store", "date"])
    assert len(forecast) == 36
    return float((forecast["prediction"] / forecast["sales"] - 1).abs().mean())


def test_forecaster_follows_the_trading_days(monkeypatch: pytest.MonkeyPatch) -> None:
    error = errors()
    monkeypatch.setattr(TradingDays, "fit", lambda panel, held_out=0: None)
    without = errors()
    assert error < 0.5 * without


def test_effect_is_saved_updated_and_used_for_new_rows(tmp_path: Path) -> None:
    table = sums(100, 3)
    forecaster = tiny(horizon=6, history=12).fit(table[table["date"] < "2019-01-01"])
    forecaster.save(tmp_path / "a.ckpt")
    loaded = Forecaster.load(tmp_path / "a.ckpt")
    for one in (forecaster, loaded):
        assert len(one._state.fitted.scaling.effects) == 1
    pd.testing.assert_frame_equal(loaded.predict(), forecaster.predict(), check_exact=True)
    newer = pd.concat([table, sums(100, 4)[lambda t: t["store"] == "s3"]])
    updated = [one.update(newer, epochs=1) for one in (forecaster, loaded)]
    forecasts = [one.predict() for one in updated]
    pd.testing.assert_frame_equal(*forecasts, check_exact=True)
    assert forecasts[0]["store"].nunique() == 4
    (days,) = forecaster._state.fitted.scaling.effects
    assert days.follows.shape == (4,)


@pytest.mark.filterwarnings("ignore:the 80 % interval")
def test_last_value_before_a_gap_keeps_the_factor_of_its_month() -> None:
    """Windows end with it. Without noise, season and trend, only the months differ."""
    months = pd.date_range("2012-01-01", periods=98, freq="MS")
    days = months.days_in_month.to_numpy()
    begin = months.to_numpy().astype("datetime64[D]")
    workdays = np.busday_count(begin, begin + days)
    sales = 10.0 * workdays + 10 * WEEKEND * (days - workdays)
    sales[[91, 92]] = np.nan  # the cutoff is after September, and July is longer
    table = pd.DataFrame({"store": "a", "date": months, "sales": sales})
    result = tiny(horizon=5, history=12).backtest(table, baselines=False).forecasts
    assert len(result) == 5
    assert (result["prediction"] / result["actual"] - 1).abs().max() < 0.002


def test_effects_can_be_seen_and_turned_off() -> None:
    table = sums(90, 2)
    seen = tiny(horizon=6, history=12).fit(table).calendar_effects_
    assert seen["effect"].tolist() == ["one more day at weekends in a month"]
    assert -0.03 < seen["change"][0] < -0.01 and seen["series"].tolist() == [2]
    unseen = tiny(horizon=6, history=12, calendar_effects=False).fit(table)
    assert unseen._state.fitted.scaling.effects == ()
    assert unseen.calendar_effects_.shape == (0, 3)
