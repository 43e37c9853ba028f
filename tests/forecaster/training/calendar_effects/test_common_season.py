"""The season that many short monthly series share is found, comes back, and is saved."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers.forecasters import tiny
from pytorch_forecasting_mlstm.forecaster import Forecaster
from pytorch_forecasting_mlstm.forecaster.panel.panel import Panel
from pytorch_forecasting_mlstm.forecaster.reading import TableReader
from pytorch_forecasting_mlstm.forecaster.training.calendar_effects import choice
from pytorch_forecasting_mlstm.forecaster.training.calendar_effects.common_season import (
    CommonSeason,
)
from pytorch_forecasting_mlstm.forecaster.training.calendar_effects.trading_days import TradingDays
from pytorch_forecasting_mlstm.forecaster.training.scaling import Scaling

#: A fall after Christmas is no smooth wave.
CHANGES = np.array([-0.3, -0.1, 0.0, 0.1, 0.0, 0.0, 0.05, 0.0, -0.05, 0.0, -0.1, 0.4])


def products(
    periods: int = 48,
    count: int = 20,
    *,
    noise: float = 0.3,
    common: float = 0.0,
    changes: np.ndarray = CHANGES,
    growth: float = 0.01,
    start: str = "2015-04-01",
) -> pd.DataFrame:
    """Return monthly sales with a season, noise of their own, and noise that all of them share."""
    rng = np.random.default_rng(0)
    months = pd.date_range(start, periods=periods, freq="MS")
    shared = np.exp(common * rng.normal(size=periods))
    parts = []
    for number in range(count):
        level = 10.0 ** rng.uniform(-1, 3) * np.exp(growth * np.arange(periods))
        values = level * (1 + changes[months.month - 1]) * shared
        values *= np.exp(noise * rng.normal(size=periods))
        parts.append(pd.DataFrame({"store": f"s{number:02}", "date": months, "sales": values}))
    return pd.concat(parts, ignore_index=True)


def sums_of_days() -> pd.DataFrame:
    """Return products of which a day at a weekend sells 0.4 of what others do."""
    table = products(noise=0.01, growth=0.0)
    dates = table["date"].to_numpy().astype("datetime64[D]")
    days = table["date"].dt.days_in_month.to_numpy()
    workdays = np.busday_count(dates, dates + days)
    return table.assign(sales=table["sales"] * (workdays + 0.4 * (days - workdays)))


def panel_of(table: pd.DataFrame) -> Panel:
    return TableReader(tiny().get_params()).read(table).panel


def fit(table: pd.DataFrame, held_out: int = 0) -> CommonSeason | None:
    return CommonSeason.fit(panel_of(table), held_out)


@pytest.mark.parametrize("start", ["2015-01-01", "2015-04-01", "2015-12-01"])
def test_season_is_found(start: str) -> None:
    season = fit(products(count=60, start=start))
    assert season is not None and season.follows.mean() > 0.95
    expected = (1 + CHANGES) / (1 + CHANGES).mean() - 1
    # The median over 60 series and three years has a standard error of about 0.03.
    assert np.abs(season.changes - expected).max() < 0.09
    assert np.abs(season.changes - expected).mean() < 0.03


def test_without_noise_it_is_found_exactly_but_for_the_trend() -> None:
    season = fit(products(noise=0.0))
    assert season is not None
    np.testing.assert_allclose(season.changes, CHANGES - CHANGES.mean(), atol=0.01)


def test_noise_of_the_years_shrinks_it() -> None:
    """All series share it, so that their number does not tell it from the season."""
    clear, noisy = fit(products(common=0.0)), fit(products(common=0.1))
    assert clear is not None and noisy is not None
    assert 0.1 < noisy.changes[11] < clear.changes[11] - 0.03
    assert fit(products(common=0.1, changes=np.zeros(12))) is None
    assert fit(products(changes=np.zeros(12))) is None


def test_season_that_hardly_matters_is_left_in() -> None:
    """Its variance is 0.005 with a factor of a half, and that of the noise 0.02 or 0.3."""
    assert fit(products(count=200, noise=0.15, changes=0.5 * CHANGES)) is not None
    assert fit(products(count=200, noise=0.6, changes=0.5 * CHANGES)) is None


def test_shrinkage_is_that_of_the_equation() -> None:
    table = products(common=0.1)
    wide = table.pivot(index="date", columns="store", values="sales")
    weights = np.r_[0.5, np.ones(11), 0.5] / 12
    around = wide.rolling(13, center=True).apply(lambda x: x @ weights, raw=True)
    median = (wide / around - 1).median(axis=1).dropna()
    by_month = median.groupby(median.index.month)
    mean, variance = by_month.mean(), (by_month.var() / by_month.size()).mean()
    tau2 = max(0.0, mean.var(ddof=0) - variance)
    season = fit(table)
    assert season is not None and 0.75 < tau2 / (tau2 + variance) < 0.99
    expected = tau2 / (tau2 + variance) * (mean - mean.mean())
    np.testing.assert_allclose(season.changes, expected, rtol=1e-9)


@pytest.mark.parametrize(
    "table",
    [
        products(count=9),
        products(periods=35),
        products(periods=74),
        products().assign(
            date=lambda t: (
                t.groupby("store").cumcount() * pd.Timedelta(days=7) + pd.Timestamp("2015-01-05")
            )
        ),
        products().assign(sales=lambda t: t["sales"] - 1e6),
        products().assign(sales=0.0),
    ],
    ids=["few", "short", "long", "weeks", "negative", "zeros"],
)
def test_where_there_is_none(table: pd.DataFrame) -> None:
    assert fit(table) is None


def test_each_month_must_occur_twice_within_complete_years() -> None:
    """Of forty months, it does; of the 34 before the held-out ones, it does not."""
    table = products(periods=40).assign(date=lambda t: t["date"] + pd.Timedelta(days=1))
    assert fit(table) is not None
    assert fit(table, held_out=6) is None


def test_held_out_rows_are_not_read() -> None:
    table = products(periods=54)
    past = fit(table[table["date"] < "2019-04-01"])
    spoiled = table.assign(sales=table["sales"].where(table["date"] < "2019-04-01", 1e6))
    season = fit(spoiled, held_out=6)
    assert past is not None and season is not None
    np.testing.assert_array_equal(season.changes, past.changes)


def test_series_with_another_season_is_left_as_it_is() -> None:
    table = products(noise=0.05)
    other = products(count=1, noise=0.05, changes=-CHANGES).assign(store="t")
    season = fit(pd.concat([table, other]))
    assert season is not None and season.follows.tolist() == [True] * 20 + [False]


def test_missing_values_and_series_of_other_lengths() -> None:
    table = products()
    holes = np.random.default_rng(1).random(len(table)) < 0.03
    table = table.assign(sales=table["sales"].mask(holes))
    table = table[~((table["store"] == "s03") & (table["date"] < "2016-09-01"))]
    season, whole = fit(table), fit(products())
    assert season is not None and whole is not None
    assert np.abs(season.changes - whole.changes).max() < 0.08


def test_forecasts_have_the_season_after_trading_days_are_taken_off() -> None:
    """Both effects are found, and their factors are multiplied."""
    sums = sums_of_days()
    panel = panel_of(sums[sums["date"] < "2018-10-01"])
    scaling = Scaling.fit(panel)
    assert [type(effect) for effect in scaling.effects] == [TradingDays, CommonSeason]
    factors = choice.future_factors(scaling.effects, panel, 6)
    truth = sums.pivot(index="store", columns="date", values="sales").to_numpy()
    past = scaling.without_effects(panel).target.reshape(20, 42)
    for levels in (past, truth[:, -6:] / factors):  # 0.17 with the season
        assert (levels.std(axis=1) / levels.mean(axis=1)).max() < 0.06


def test_forecaster_keeps_it_in_its_file_and_for_new_series(tmp_path: Path) -> None:
    table = products(noise=0.05)
    forecaster = tiny(horizon=6, history=12).fit(table)
    forecaster.save(tmp_path / "a.ckpt")
    loaded = Forecaster.load(tmp_path / "a.ckpt")
    pd.testing.assert_frame_equal(loaded.predict(), forecaster.predict(), check_exact=True)
    seen = loaded.calendar_effects_
    assert seen["effect"].tolist()[0] == "January, in the common season" and len(seen) == 12
    assert seen["series"].tolist() == [20] * 12
    newer = pd.concat([products(50, noise=0.05), products(14, 1, noise=0.05).assign(store="t")])
    updated = [one.update(newer, epochs=1) for one in (forecaster, loaded)]
    pd.testing.assert_frame_equal(*(one.predict() for one in updated), check_exact=True)
    (season,) = updated[1]._state.fitted.scaling.effects
    assert season.follows.tolist() == [True] * 21


def errors(**parameters: Any) -> float:
    """Return the error of forecasts without the noise that cannot be known."""
    table, truth = (products(54, 40, noise=noise, start="2015-07-01") for noise in (0.3, 0.0))
    forecaster = tiny(horizon=6, history=12, **parameters)
    forecast = forecaster.fit(table[table["date"] < "2019-07-01"]).predict()
    merged = forecast.merge(truth, on=["store", "date"])
    assert len(merged) == 240
    return float((merged["prediction"] / merged["sales"] - 1).abs().mean())


def test_it_lowers_the_error() -> None:
    assert errors() < 0.8 * errors(calendar_effects=False)


@pytest.mark.parametrize("count", [10, 20])
@pytest.mark.parametrize("share", [0.01, 0.05])
def test_some_missing_months_change_little(count: int, share: float) -> None:
    """Each is within the year around thirteen others."""
    table = products(count=count, noise=0.05)
    holes = np.random.default_rng(count).random(len(table)) < share
    season, whole = fit(table[~holes], held_out=6), fit(table, held_out=6)
    assert season is not None and whole is not None
    assert np.abs(season.changes - whole.changes).max() < 0.05


def test_noise_that_series_share_is_rarely_a_season() -> None:
    found = []
    for seed in range(40):
        shared = np.exp(0.1 * np.random.default_rng(seed).normal(size=42))
        table = products(42, changes=np.zeros(12))
        table["sales"] *= np.tile(shared, 20)
        found.append(fit(table) is not None)
    assert sum(found) <= 2  # 7 if half of it had to be beyond chance


def test_several_targets_have_none() -> None:
    """Visits and sales need not have the same season."""
    table = products().assign(visits=lambda t: t["sales"])
    read = TableReader(tiny(target=["sales", "visits"]).get_params()).read(table)
    assert CommonSeason.fit(read.panel) is None
    assert fit(table) is not None


def test_of_many_series_a_random_part_tells_it() -> None:
    """Every other series is one of a kind without a season."""
    table = products(count=1200, noise=0.1)
    flat = table["store"].str[1:].astype(int) % 2 == 1
    factors = 1 + CHANGES[table["date"].dt.month - 1]
    table["sales"] = table["sales"].where(~flat, table["sales"] / factors)
    part, whole = fit(table), fit(table[table["store"].str[1:].astype(int) < 1000])
    assert part is not None and whole is not None
    assert np.abs(part.changes - whole.changes).max() < 0.04


def test_six_years_are_not_too_long() -> None:
    assert fit(products(periods=71)) is not None
    assert fit(products(periods=73)) is None


def test_empty_months_have_the_least_factor() -> None:
    changes = np.full(12, -1.0)
    changes[11] = 11.0
    season = fit(products(noise=0.01, growth=0.0, changes=changes))
    assert season is not None
    assert season.changes[:11].tolist() == [-0.95] * 11
    assert season.changes[11] == pytest.approx(11, rel=0.02) and season.is_possible


def test_season_of_scales_does_not_read_held_out_rows() -> None:
    table = products(periods=54)
    spoiled = table.assign(sales=table["sales"].where(table["date"] < "2019-04-01", 1e6))
    (season,) = Scaling.fit(panel_of(table), held_out=6).effects
    (other,) = Scaling.fit(panel_of(spoiled), held_out=6).effects
    assert isinstance(season, CommonSeason) and isinstance(other, CommonSeason)
    np.testing.assert_array_equal(season.changes, other.changes)


def test_season_is_that_of_what_trading_days_leave() -> None:
    sums = sums_of_days()
    scaling = Scaling.fit(panel_of(sums))
    season, alone = scaling.effects[1], fit(sums)
    assert isinstance(season, CommonSeason) and alone is not None
    expected = (1 + CHANGES) / (1 + CHANGES).mean() - 1
    error, error_alone = (np.abs(x.changes - expected).max() for x in (season, alone))
    assert error < 0.5 * error_alone


def test_update_keeps_which_series_follow() -> None:
    """A known one that does not, and new ones of both kinds."""
    table = products(noise=0.05)
    odd = products(count=1, noise=0.05, changes=-CHANGES)
    known = pd.concat([table, odd.assign(store="r")])
    forecaster = tiny(horizon=6, history=12).fit(known)
    usual = products(count=1, noise=0.05)
    newer = pd.concat([known, odd.assign(store="t"), usual.assign(store="u")])
    updated = forecaster.update(newer, epochs=1)._state
    (season,) = updated.fitted.scaling.effects
    follows = dict(zip(updated.groups["store"], season.follows.tolist(), strict=True))
    assert [follows[name] for name in ("s00", "r", "t", "u")] == [True, False, False, True]
