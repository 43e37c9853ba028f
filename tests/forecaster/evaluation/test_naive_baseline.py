"""The seasonal naive forecast of one series, against loops over windows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytorch_forecasting_mlstm.forecaster.evaluation.naive_baseline import (
    choose_season,
    naive_forecast,
)

LEVELS = [0.1, 0.5, 0.9]


def repeat_known(history: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Forecast by walking back, season by season, to a known value."""
    forecast = np.full(horizon, np.nan)
    for step in range(horizon):
        t = len(history) + step
        while t >= len(history) or (t >= 0 and np.isnan(history[t])):
            t -= season
        if t >= 0:
            forecast[step] = history[t]
    return forecast


def window_errors(history: np.ndarray, horizon: int, season: int) -> list[list[float]]:
    """Return the errors at each step, of the forecasts from all origins in the history."""
    errors: list[list[float]] = [[] for _ in range(horizon)]
    for origin in range(1, len(history)):
        forecast = repeat_known(history[:origin], horizon, season)
        for step in range(min(horizon, len(history) - origin)):
            # a forecast needs as many whole seasons before it as it looks back
            enough = origin + step >= season * (step // season + 1)
            error = history[origin + step] - forecast[step]
            if enough and not np.isnan(error):
                errors[step].append(error)
    return errors


@given(
    values=st.lists(st.sampled_from([np.nan, 1.0, 2.0, 5.0, -3.0]), max_size=40),
    season=st.integers(1, 9),
    horizon=st.integers(1, 20),
)
def test_point_forecast_walks_back_to_a_known_value(
    values: list[float], season: int, horizon: int
) -> None:
    history = np.array(values)
    point, quantiles = naive_forecast(history, horizon, [season], LEVELS)
    used = season if len(history) >= season else 1
    expected = repeat_known(history, horizon, used)
    known = history[~np.isnan(history)]
    expected[np.isnan(expected)] = known[-1] if len(known) else np.nan
    assert np.array_equal(point, expected, equal_nan=True)
    assert point.shape == (horizon,) and quantiles.shape == (horizon, 3)


@pytest.mark.parametrize(("season", "horizon"), [(1, 5), (7, 3), (7, 16), (4, 4)])
@pytest.mark.parametrize("missing", [0.0, 0.15])
def test_quantiles_are_those_of_the_errors_at_the_same_step(
    season: int, horizon: int, missing: float
) -> None:
    rng = np.random.default_rng(season)
    history = rng.normal(size=90).cumsum()
    history[rng.random(90) < missing] = np.nan
    point, quantiles = naive_forecast(history, horizon, [season], LEVELS)
    errors = window_errors(history, horizon, season)
    for step in range(horizon):
        expected = point[step] + np.quantile(errors[step], LEVELS)
        assert np.allclose(quantiles[step], expected, rtol=1e-12)


def test_intervals_of_a_random_walk_grow() -> None:
    history = np.random.default_rng(0).normal(size=500).cumsum()
    _, quantiles = naive_forecast(history, 9, [1], LEVELS)
    assert np.ptp(quantiles[8]) > 2 * np.ptp(quantiles[0])


def test_steps_with_few_errors_share_them() -> None:
    history = np.array([1.0, 2.0, 4.0, 7.0])
    point, quantiles = naive_forecast(history, 3, [1], [0.5])
    errors = [1, 2, 3, 3, 5, 6]  # of one, two and three steps
    assert np.allclose(quantiles, point[:, None] + np.median(errors))


@pytest.mark.parametrize("history", [[], [np.nan, np.nan], [3.0], [np.nan, 3.0, np.nan]])
def test_spread_of_too_short_histories_is_unknown(history: list[float]) -> None:
    point, quantiles = naive_forecast(np.array(history), 2, [7, 1], LEVELS)
    known = [value for value in history if value == value]
    assert np.array_equal(point, [known[0]] * 2 if known else [np.nan] * 2, equal_nan=True)
    assert np.isnan(quantiles).all()


def test_choose_season_finds_the_season_of_the_data() -> None:
    rng = np.random.default_rng(0)
    weekly = np.tile([1.0, 5, 2, 8, 3, 9, 4], 70) + rng.normal(0, 0.1, 490)
    walk = rng.normal(size=490).cumsum()
    weekly[::11] = np.nan
    assert choose_season(weekly, 10, [364, 7, 1]) == 7
    assert choose_season(walk, 10, [364, 7, 1]) == 1


def test_choose_season_compares_on_the_same_values() -> None:
    """The first half is a perfect season of one, which only the short season could score."""
    weekly = np.tile([1.0, 5, 2, 8, 3, 9, 4], 5)
    history = np.concatenate([np.ones(1000), weekly, weekly])
    assert choose_season(history[-70:], 3, [7, 1]) == 7
    assert choose_season(np.concatenate([np.full(40, 3.0), weekly[:30]]), 3, [40, 7, 1]) == 7


def test_choose_season_leaves_out_what_cannot_be_measured() -> None:
    values = np.random.default_rng(0).normal(size=30)
    assert choose_season(values, 5, [364, 28, 1]) == 1
    assert choose_season(values[:4], 5, [364, 28, 1]) == 1
    assert choose_season(values, 5, [12]) == 12
    assert choose_season(values, 5, [31]) == 1
    assert choose_season(np.full(30, np.nan), 5, [7, 1]) == 1


def test_long_history_stays_small() -> None:
    """The errors of all steps of 200,000 values would take 500 MB."""
    history = np.random.default_rng(0).normal(size=200_000).cumsum()
    point, quantiles = naive_forecast(history, 336, [168, 24, 1], LEVELS)
    assert (point == history[-1]).all() and np.isfinite(quantiles).all()
