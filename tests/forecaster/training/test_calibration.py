"""Calibrated quantiles hold on exchangeable windows."""

import numpy as np
import pytest

from pytorch_forecasting_mlstm.forecaster.training.calibration import Calibration

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
        calibration = Calibration.fit(*windows(count, horizon, rng), LEVELS)
        truth, forecast = windows(100, horizon, rng)
        shifted = calibration.apply(forecast)
        assert (np.diff(shifted, axis=-1) >= 0).all()
        inside = (truth >= shifted[..., 0]) & (truth <= shifted[..., 2])
        covered += inside.mean(axis=0) / 200
    if count >= 100:
        assert (covered > 0.795).all() and (covered < 0.82).all()
    else:  # steps are pooled: the share holds over all of them
        assert 0.79 < covered.mean() < 0.87


def test_share_is_that_of_the_theorem_for_every_number_of_scores() -> None:
    """Among n + 1 exchangeable scores, the new one is inside in 80 %, and at most 1 / n more."""
    rng = np.random.default_rng(1)
    for count in (30, 37, 49, 100):
        inside, draws = 0.0, 1500
        for _ in range(draws):
            values = rng.normal(size=count + 1)
            quantiles = np.broadcast_to([-0.1, 0.0, 0.1], (count, 1, 3))
            calibration = Calibration.fit(values[:count, None], quantiles, LEVELS)
            low, _, high = calibration.apply(quantiles[:1])[0, 0]
            inside += (low <= values[-1] <= high) / draws
        error = 3 * np.sqrt(0.16 / draws)
        assert 0.8 - error <= inside <= 0.8 + 1 / (count + 1) + error


def test_intervals_are_never_narrowed_and_the_median_and_single_quantiles_stay() -> None:
    rng = np.random.default_rng(2)
    levels = np.array([0.05, 0.1, 0.3, 0.5, 0.9])
    actual = rng.normal(size=(300, 2))
    wide = np.broadcast_to([-90.0, -80, -70, 0, 80], (300, 2, 5))
    assert (Calibration.fit(actual, wide, levels).shift == 0).all()
    narrow = np.broadcast_to([-0.3, -0.2, -0.1, 0, 0.2], (300, 2, 5))
    shift = Calibration.fit(actual, narrow, levels).shift
    assert (shift[:, [0, 2, 3]] == 0).all()
    assert (shift[:, 4] > 0).all() and (shift[:, 1] == -shift[:, 4]).all()


def test_missing_truths_are_left_out() -> None:
    actual, quantiles = windows(200, 2, np.random.default_rng(2))
    calibration = Calibration.fit(actual, quantiles, LEVELS)
    more = np.concatenate([actual, np.full((50, 2), np.nan)])
    again = Calibration.fit(more, np.concatenate([quantiles, quantiles[:50]]), LEVELS)
    np.testing.assert_array_equal(again.shift, calibration.shift)


def test_few_scores_change_nothing_and_later_steps_follow_the_last() -> None:
    actual, quantiles = windows(9, 3, np.random.default_rng(0))
    assert (Calibration.fit(actual, quantiles, LEVELS).shift == 0).all()
    calibration = Calibration(np.array([[-1.0, 0, 1], [-2, 0, 2]]))
    forecast = np.tile([-0.5, 0.0, 0.5], (1, 4, 1))
    np.testing.assert_allclose(calibration.apply(forecast)[0, :, 2], [1.5, 2.5, 2.5, 2.5])


def test_shifts_follow_the_unit() -> None:
    """Intervals ten times as wide are shifted ten times as far."""
    actual, quantiles = windows(200, 2, np.random.default_rng(3))
    calibration = Calibration.fit(actual, quantiles, LEVELS)
    larger = Calibration.fit(10 * actual, 10 * quantiles, LEVELS)
    np.testing.assert_allclose(
        larger.apply(10 * quantiles), 10 * calibration.apply(quantiles), rtol=1e-12
    )
