"""Holidays are found by their date or weekday of the month, and come back in forecasts."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.forecasters import tiny
from pytorch_forecasting_mlstm.forecaster import Forecaster
from pytorch_forecasting_mlstm.forecaster.panel.panel import Panel
from pytorch_forecasting_mlstm.forecaster.reading import TableReader
from pytorch_forecasting_mlstm.forecaster.training.calendar_effects.special_days import SpecialDays
from pytorch_forecasting_mlstm.forecaster.training.scaling import Scaling

CHRISTMAS, JULY, THANKSGIVING, MEMORIAL = 0.4, 0.7, 0.5, 0.8


def factors_of(dates: pd.DatetimeIndex) -> np.ndarray:
    """Return what the calendar of these tests multiplies a day by."""
    month, day, weekday = dates.month, dates.day, dates.dayofweek
    result = np.ones(len(dates))
    result[(month == 12) & (day == 25)] = CHRISTMAS
    result[(month == 7) & (day == 4)] = JULY
    result[(month == 11) & (weekday == 3) & ((day - 1) // 7 == 3)] = THANKSGIVING
    result[(month == 5) & (weekday == 0) & (day + 7 > 31)] = MEMORIAL
    return result


def stores(
    years: int, count: int = 1, noise: float = 0.03, start: str = "2012-01-01"
) -> pd.DataFrame:
    """Return daily sales with a week, a year, a trend and the special days of this file."""
    dates = pd.date_range(start, periods=365 * years)
    rng = np.random.default_rng(0)
    t, parts = np.arange(len(dates)), []
    for number in range(count):
        ordinary = (50 + 10 * number) * (1 + t / 5000) * (1 + 0.2 * np.sin(2 * np.pi * t / 365.25))
        ordinary *= np.where(dates.dayofweek < 5, 1.0, 0.6)
        sales = ordinary * factors_of(dates) * np.exp(noise * rng.normal(size=len(dates)))
        parts.append(pd.DataFrame({"store": f"s{number}", "date": dates, "sales": sales}))
    return pd.concat(parts, ignore_index=True)


def panel_of(table: pd.DataFrame) -> Panel:
    return TableReader(tiny(outliers="keep").get_params()).read(table).panel


def fit(table: pd.DataFrame, held_out: int = 0) -> SpecialDays | None:
    return SpecialDays.fit(panel_of(table), held_out)


def scaled_of(scaling: Scaling, panel: Panel) -> np.ndarray:
    return scaling.scale(scaling.without_effects(panel))


def years_of(days: SpecialDays, panel: Panel, year: int) -> pd.Series:
    """Return the factors of a year, which may lie in the future."""
    dates = pd.date_range(f"{year}-01-01", f"{year}-12-31")
    positions = np.asarray((dates - panel.axis.start).days)
    return pd.Series(days.factors(panel.axis, positions, np.zeros(len(dates), dtype=int)), dates)


@pytest.mark.parametrize(("years", "count"), [(4, 5), (8, 1)])
def test_special_days_are_found_and_hold_in_later_years(years: int, count: int) -> None:
    """The fourth Thursday and the last Monday have other dates there."""
    table = stores(years, count)
    days, panel = fit(table), panel_of(table)
    assert days is not None and days.follows.all()
    for year in (2013, 2024, 2026):
        factors = years_of(days, panel, year)
        expected = factors_of(pd.DatetimeIndex(factors.index))
        assert np.abs(factors - expected).max() < 0.06
        ordinary = factors[expected == 1]
        assert (ordinary == 1).mean() > 0.98


@pytest.mark.parametrize("count", [1, 10])
def test_ordinary_series_have_no_special_days(count: int) -> None:
    rng = np.random.default_rng(1)
    dates = pd.date_range("2015-01-01", periods=4 * 365)
    for _ in range(5):
        noise = rng.normal(size=(count, len(dates)))
        level = 20 + 4 * np.sin(2 * np.pi * np.arange(len(dates)) / 365.25) ** 5
        table = pd.DataFrame(
            {
                "store": np.repeat([f"s{k}" for k in range(count)], len(dates)),
                "date": np.tile(dates, count),
                "sales": (level * np.exp(0.1 * noise)).ravel(),
            }
        )
        assert fit(table) is None


def test_peak_of_a_season_is_not_special() -> None:
    """It is above the weeks around it in every year, but so are the days around it."""
    dates = pd.date_range("1990-01-01", periods=20 * 365)
    rng = np.random.default_rng(0)
    peak = np.exp(-(((dates.dayofyear - 97) / 8) ** 2))
    sales = (10 + 40 * peak) * np.exp(0.3 * rng.normal(size=len(dates)))
    assert fit(pd.DataFrame({"store": "a", "date": dates, "sales": sales})) is None


@pytest.mark.parametrize("frequency", ["W", "h", "B", "2D", "MS"])
def test_other_steps_have_no_special_days(frequency: str) -> None:
    table = stores(5)
    dates = pd.date_range("1950-01-01", periods=len(table), freq=frequency)
    assert fit(table.assign(date=dates)) is None


def test_two_years_are_too_few() -> None:
    assert fit(stores(2, 5)) is None


def test_held_out_rows_decide_nothing() -> None:
    table = stores(5, 2)
    last = table["date"] >= table["date"].max() - pd.Timedelta(days=89)
    days = fit(table, held_out=90)
    changed = fit(table.assign(sales=table["sales"].where(~last, 7.0)), held_out=90)
    assert days is not None and changed is not None
    np.testing.assert_array_equal(changed.rules, days.rules)
    np.testing.assert_array_equal(changed.effects, days.effects)


def test_series_without_the_effects_are_left_as_they_are() -> None:
    """So are those whose values may be negative, and those that are closed on Christmas."""
    table = stores(6, 6)
    dates = pd.DatetimeIndex(table["date"])
    other = (table["store"] == "s1").to_numpy()
    table.loc[other, "sales"] /= factors_of(dates)[other]
    table.loc[table["store"] == "s2", "sales"] -= 200
    table.loc[(table["store"] == "s3") & (dates.month == 12) & (dates.day == 25), "sales"] = np.nan
    days = fit(table)
    assert days is not None
    assert days.follows.tolist() == [True, False, False, True, True, True]
    panel = panel_of(table)
    assert np.isfinite(scaled_of(Scaling.fit(panel), panel)[panel.series != 3]).all()


def test_days_without_any_sales_have_a_bounded_factor() -> None:
    table = stores(5, 2)
    closed = (table["date"].dt.month == 12) & (table["date"].dt.day == 25)
    days = fit(table.assign(sales=table["sales"].where(~closed, 0.0)))
    assert days is not None and days.effects.min() == pytest.approx(-0.9)


@pytest.mark.parametrize("factor", [1e-290, 1e290])
def test_size_of_the_numbers_does_not_matter(factor: float) -> None:
    table = stores(5)
    days, other = fit(table), fit(table.assign(sales=table["sales"] * factor))
    assert days is not None and other is not None
    np.testing.assert_array_equal(other.rules, days.rules)
    np.testing.assert_allclose(other.effects, days.effects)


def test_scaled_series_have_no_special_days_and_forecasts_have_them() -> None:
    table = stores(6, 2, noise=0.01)
    past = table[table["date"] < "2017-11-01"]
    panel, later = panel_of(past), panel_of(table)
    scaling = Scaling.fit(panel)
    assert [type(effect) for effect in scaling.effects] == [SpecialDays]
    scaled = scaled_of(scaling, panel)[panel.series == 0]
    assert SpecialDays.fit(panel_of(past[past["store"] == "s0"].assign(sales=scaled + 10))) is None
    positions = np.arange(int(panel.ends[0]), int(later.ends[0]))
    forecast = np.zeros((2, len(positions), 3)) + np.array([-0.1, 0.0, 0.1])
    result = scaling.unscale(forecast, panel)
    dates = pd.DatetimeIndex(later.axis.at(positions))
    christmas, before = (
        np.flatnonzero((dates.month == 12) & (dates.day == d))[0] for d in (25, 21)
    )
    assert result[0, christmas, 1] == pytest.approx(CHRISTMAS * result[0, before, 1], rel=0.05)
    assert (np.diff(result, axis=-1) > 0).all()


def test_forecaster_keeps_the_effects_in_its_file_and_for_new_series(tmp_path: Path) -> None:
    table = stores(4, 2)
    forecaster = tiny(horizon=7).fit(table[table["date"] < "2015-12-22"])
    forecaster.save(tmp_path / "a.ckpt")
    loaded = Forecaster.load(tmp_path / "a.ckpt")
    forecast = forecaster.predict()
    pd.testing.assert_frame_equal(loaded.predict(), forecast, check_exact=True)
    of_one = forecast[forecast["store"] == "s0"].set_index("date")["prediction"]
    assert of_one["2015-12-25"] < 0.6 * of_one["2015-12-24"]
    more = pd.concat([table, stores(4, 3)[lambda t: t["store"] == "s2"]])
    updated = [one.update(more, epochs=1).predict() for one in (forecaster, loaded)]
    pd.testing.assert_frame_equal(*updated, check_exact=True)
    (effect,) = forecaster._state.fitted.scaling.effects
    assert effect.follows.tolist() == [True, True, True]


def test_effects_are_named() -> None:
    seen = tiny(horizon=7).fit(stores(6, 2)).calendar_effects_
    changes = seen.set_index("effect")["change"]
    assert changes["December 25"] == pytest.approx(CHRISTMAS - 1, abs=0.05)
    assert changes["the fourth Thursday of November"] == pytest.approx(THANKSGIVING - 1, abs=0.05)
    assert changes["the last Monday of May"] == pytest.approx(MEMORIAL - 1, abs=0.05)
    assert changes.abs().is_monotonic_decreasing


def test_holiday_that_was_never_at_a_weekend_has_its_effect_there() -> None:
    """Of December 25, 2012 to 2015 have none at a weekend."""
    days, panel = fit(stores(4, 5)), panel_of(stores(4, 5))
    assert days is not None
    assert years_of(days, panel, 2021)["2021-12-25"] == pytest.approx(CHRISTMAS, abs=0.05)


@pytest.mark.parametrize("factor", [3.0, 10.0])
def test_one_strong_day_does_not_hide_the_others(factor: float) -> None:
    table = stores(6, 3, noise=0.05)
    dates = table["date"].dt
    black_friday = (dates.month == 11) & (dates.dayofweek == 4) & ((dates.day - 1) // 7 == 3)
    days = fit(table.assign(sales=table["sales"] * np.where(black_friday, factor, 1.0)))
    assert days is not None
    words = set(days.to_table()["effect"])
    assert {"December 25", "July 4", "the last Monday of May"} < words
    assert "the fourth Friday of November" in words


@pytest.mark.parametrize("share", [0.4, 0.5])
def test_effect_is_that_of_the_series_that_have_it(share: float) -> None:
    table = stores(6, 20)
    without = (table["store"].str[1:].astype(int) >= 20 * share).to_numpy()
    factors = factors_of(pd.DatetimeIndex(table["date"]))
    table.loc[without, "sales"] /= factors[without]
    days = fit(table)
    assert days is not None
    assert days.follows.tolist() == [k < 20 * share for k in range(20)]
    changes = days.to_table().set_index("effect")["change"]
    assert changes["December 25"] == pytest.approx(CHRISTMAS - 1, abs=0.05)


def test_open_on_a_day_that_was_always_closed() -> None:
    """The value is an ordinary one, and would be tenfold after the division."""
    table = stores(7, 1)
    christmas = (table["date"].dt.month == 12) & (table["date"].dt.day == 25)
    closed = table.assign(sales=table["sales"].where(~christmas, 0.0))
    scaling = Scaling.fit(panel_of(closed))
    (effect,) = scaling.effects
    assert effect.follows.all()
    opened = closed.copy()
    opened.loc[table["date"] == "2018-12-25", "sales"] = 70.0
    ordinary = closed["sales"][~christmas]
    assert scaling.without_effects(panel_of(opened)).target.max() <= 2 * ordinary.max()
    again = fit(opened)  # one odd year changes nothing
    assert again is not None and again.follows.all()


def test_effect_of_no_series_is_none() -> None:
    """Held-out rows with a negative value keep the only series from having one."""
    table = stores(5, 1)
    table.loc[table.index[-5], "sales"] = -1.0
    assert fit(table, held_out=90) is None
