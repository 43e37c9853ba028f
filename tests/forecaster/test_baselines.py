"""The seasonal naive forecast and its quantiles."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from helpers.tables import make_test_panel
from pytorch_forecasting_mlstm.forecaster.baselines import SeasonalNaive, seasonal_naive
from pytorch_forecasting_mlstm.forecaster.quantiles import QUANTILES
from pytorch_forecasting_mlstm.forecaster.splits import split_panel
from pytorch_forecasting_mlstm.forecaster.windows import cut_windows

LEVELS = np.array(QUANTILES)


@given(
    history=st.lists(st.integers(-9, 9), min_size=1, max_size=30),
    season=st.integers(1, 12),
    horizon=st.integers(1, 30),
)
def test_seasonal_naive_repeats_the_last_season(
    history: list[int], season: int, horizon: int
) -> None:
    forecast = seasonal_naive(np.array(history), season, horizon)
    extended = list(history)
    for _ in range(horizon):
        extended.append(extended[-season] if len(history) >= season else history[-1])
    assert forecast.tolist() == extended[len(history) :]


def test_seasonal_naive_fits_validation_data_alone() -> None:
    """Weekly data, with and without noise in the test part, give the same baseline."""
    values = np.tile([1.0, 5, 2, 8, 3, 9, 4], 20)
    values += np.random.default_rng(0).normal(0, 0.1, len(values))
    panel, noisy_values = make_test_panel(values), values.copy()
    split = split_panel(panel, horizon=3)
    noisy_values[split.test :] = np.random.default_rng(1).normal(0, 50, len(values) - split.test)
    noisy_panel = make_test_panel(noisy_values)
    scale = np.array([2.0])
    naive, noisy_naive = (
        SeasonalNaive.fit(
            cut_windows(data, split, split.validation_origins), [364, 7, 1], scale, LEVELS
        )
        for data in (panel, noisy_panel)
    )
    assert naive.season == noisy_naive.season == 7
    assert np.array_equal(naive.spread, noisy_naive.spread)

    errors = [
        values[t : t + 3] - values[t - 7 : t - 4] for t in range(split.validation, split.test - 2)
    ]
    expected = np.quantile(np.array(errors) / 2, LEVELS)  # few windows share it between all steps
    assert np.allclose(naive.spread, expected[None], rtol=1e-12)
    windows = cut_windows(panel, split, split.test_origins)
    point, quantiles = naive.predict(windows, scale)
    assert np.allclose(quantiles, point[..., None] + 2 * expected, rtol=1e-12)


def test_seasonal_naive_spread_per_step_with_many_windows() -> None:
    values = np.random.default_rng(0).normal(size=700).cumsum()
    split = split_panel(make_test_panel(values), horizon=5)
    windows = cut_windows(make_test_panel(values), split, split.validation_origins)
    naive = SeasonalNaive.fit(windows, [1], np.ones(1), LEVELS)
    errors = windows.actual - values[windows.origins - 1][:, None]
    assert np.allclose(naive.spread, np.quantile(errors, LEVELS, axis=0).T, rtol=1e-12)
    assert np.ptp(naive.spread[4]) > 1.5 * np.ptp(naive.spread[0]), (
        "the errors of a random walk grow"
    )
