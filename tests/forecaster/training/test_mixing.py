"""The share of the network is the smallest that is nearly the best on held-out rows."""

import numpy as np
import pytest

from pytorch_forecasting_mlstm.forecaster.training.mixing import (
    UNTESTED_SHARE,
    choose_share,
    mix,
)

LEVELS = np.array([0.1, 0.5, 0.9])


def loss(actual: np.ndarray, quantiles: np.ndarray) -> float:
    """Return the mean quantile loss of what was observed, one by one."""
    total, count = 0.0, 0
    for window in range(actual.shape[0]):
        for step in range(actual.shape[1]):
            truth = actual[window, step]
            if np.isnan(truth):
                continue
            for level, value in zip(LEVELS, quantiles[window, step], strict=True):
                total += level * (truth - value) if truth > value else (1 - level) * (value - truth)
                count += 1
    return total / count


def test_share_is_the_smallest_that_is_nearly_the_best() -> None:
    """By brute force, with truth that is missing; all shares occur."""
    rng = np.random.default_rng(0)
    chosen = set()
    for case in range(60):
        actual = rng.normal(size=(9, 4))
        actual[rng.random((9, 4)) < 0.2] = np.nan
        noise = rng.normal(size=(2, 9, 4, 1)) * rng.choice([0.05, 0.5, 2.0], (2, 1, 1, 1))
        truth = np.nan_to_num(actual)[..., None]
        network, linear = np.sort(truth + noise + [-0.3, 0, 0.3])
        share = choose_share(actual, network, linear, LEVELS)
        losses = {s: loss(actual, s * network + (1 - s) * linear) for s in (0.25, 0.5, 0.75, 1.0)}
        best = min(losses.values())
        assert share == min(s for s, value in losses.items() if value <= 1.01 * best), case
        chosen.add(share)
    assert chosen == {0.25, 0.5, 0.75, 1.0}


def test_equal_forecasts_leave_the_least_to_the_network() -> None:
    actual, quantiles = np.zeros((3, 2)), np.zeros((3, 2, 3)) + [-1, 0, 1]
    assert choose_share(actual, quantiles, quantiles, LEVELS) == 0.25
    exact = np.zeros((3, 2, 3))
    assert choose_share(actual, exact, exact, LEVELS) == 0.25
    assert choose_share(actual, exact, quantiles, LEVELS) == 1


@pytest.mark.filterwarnings("error")
def test_without_truth_or_a_network_that_works_the_share_is_the_untested_one() -> None:
    actual, quantiles = np.zeros((3, 2)), np.zeros((3, 2, 3)) + [-1, 0, 1]
    assert choose_share(np.full((3, 2), np.nan), quantiles, quantiles, LEVELS) == UNTESTED_SHARE
    failed = np.full((3, 2, 3), np.nan)
    assert choose_share(actual, failed, quantiles, LEVELS) == UNTESTED_SHARE


def test_mix_is_a_weighted_mean() -> None:
    rng = np.random.default_rng(0)
    network, linear = np.sort(rng.normal(size=(2, 5, 4, 3)))
    np.testing.assert_array_equal(mix(network, linear, 1.0), network)
    np.testing.assert_allclose(mix(network, linear, 0.25), linear + (network - linear) / 4)
    assert (np.diff(mix(network, linear, 0.5)) >= 0).all()
