"""Calibrated quantiles hold on exchangeable windows."""

import numpy as np
import pytest

from pytorch_forecasting_mlstm.forecaster.calibration import Calibration

LEVELS = np.array([0.1, 0.5, 0.9])


def windows(count: int, horizon: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return truths whose spread grows with the step, and forecasts that ignore this."""
    level = rng.normal(size=(count, 1))
    actual = level + rng.normal(size=(count, horizon)) * np.arange(1, horizon + 1)
    quantiles = level[..., None] + np.array([-0.3, 0.4, 0.5]) + np.zeros((1, horizon, 1))
    return actual, quantiles


@pytest.mark.parametrize(("count", "horizon"), [(400, 3), (60, 4), (31, 1)])
def test_calibrated_intervals_hold_on_new_windows(count: int, horizon: int) -> None:
    """On average over calibrations, as the theorem says: at least their share, at every step."""
    rng = np.random.default_rng(0)
    covered = np.zeros(horizon)
    for _ in range(200):
        actual, quantiles = windows(count, horizon, rng)
        calibration = Calibration.fit(actual, quantiles, LEVELS)
        truth, forecast = windows(100, horizon, rng)
        shifted = calibration.apply(forecast)
        assert (np.diff(shifted, axis=-1) >= 0).all()
        inside = (truth >= shifted[..., 0]) & (truth <= shifted[..., 2])
        covered += inside.mean(axis=0) / 200
    if count >= 100:
        assert (covered > 0.795).all() and (covered < 0.82).all()
    else:  # steps are pooled: the share holds over all of them
        assert 0.79 < covered.mean() < 0.87


def test_each_bound_is_conservative_for_every_number_of_scores() -> None:
    """Among n + 1 exchangeable scores, the new one lies above the bound in at most 10 %."""
    rng = np.random.default_rng(1)
    for count in (30, 37, 49, 100):
        above, below, draws = 0.0, 0.0, 1500
        for _ in range(draws):
            scores = rng.normal(size=count + 1)
            actual = scores[:count, None]
            quantiles = np.broadcast_to([-1.0, 0.0, 1.0], (count, 1, 3))
            shifted = Calibration.fit(actual, quantiles, LEVELS).apply(quantiles[:1])[0, 0]
            below += (scores[-1] < shifted[0]) / draws
            above += (scores[-1] > shifted[2]) / draws
        error = 3 * np.sqrt(0.09 / draws)
        assert above <= 0.1 + error and below <= 0.1 + error
        assert above >= 0.1 - 1 / (count + 1) - error


def test_median_stays_and_missing_truths_are_left_out() -> None:
    rng = np.random.default_rng(2)
    actual, quantiles = windows(200, 2, rng)
    calibration = Calibration.fit(actual, quantiles, LEVELS)
    assert (calibration.shift[:, 1] == 0).all()
    more = np.concatenate([actual, np.full((50, 2), np.nan)])
    again = Calibration.fit(more, np.concatenate([quantiles, quantiles[:50]]), LEVELS)
    np.testing.assert_array_equal(again.shift, calibration.shift)


def test_few_scores_change_nothing_and_later_steps_follow_the_last() -> None:
    actual, quantiles = windows(9, 3, np.random.default_rng(0))
    assert (Calibration.fit(actual, quantiles, LEVELS).shift == 0).all()
    calibration = Calibration(np.array([[-1.0, 0, 1], [-2, 0, 2]]))
    forecast = np.tile([-0.5, 0.0, 0.5], (1, 4, 1))
    np.testing.assert_allclose(
        calibration.apply(forecast)[0, :, 2], [1.5, 2.5, 2.5, 2.5]
    )


def test_shifts_follow_the_unit() -> None:
    """Intervals ten times as wide are shifted ten times as far."""
    actual, quantiles = windows(200, 2, np.random.default_rng(3))
    calibration = Calibration.fit(actual, quantiles, LEVELS)
    larger = Calibration.fit(10 * actual, 10 * quantiles, LEVELS)
    np.testing.assert_allclose(
        larger.apply(10 * quantiles), 10 * calibration.apply(quantiles), rtol=1e-12
    )
