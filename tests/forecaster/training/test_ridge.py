"""Ridge regressions in closed form, averaged into one linear map."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from helpers.tables import noisy_season
from pytorch_forecasting_mlstm.forecaster.training import ridge
from pytorch_forecasting_mlstm.forecaster.training.ridge import LinearStart, RidgeRegressions

LEVELS = (0.1, 0.5, 0.9)


def start(
    series: Sequence[np.ndarray], horizon: int, lengths: Sequence[int], **options: Any
) -> LinearStart:
    history = options.pop("history", max(lengths))
    found = RidgeRegressions(series, horizon, LEVELS).average(history, lengths)
    assert found is not None
    return found


def standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def all_windows(
    series: Sequence[np.ndarray], length: int, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return histories and horizons of all windows, one by one."""
    windows = [
        values[first : first + length + horizon]
        for values in series
        for first in range(len(values) - length - horizon + 1)
    ]
    both = np.array(windows)
    return both[:, :length], both[:, length:]


def centers(length: int, horizon: int) -> list[np.ndarray]:
    """Return the weights of the mean, of the mean of the last horizon, and of the last value."""
    steps = np.arange(length)
    return [
        np.full(length, 1 / length),
        (steps >= length - horizon) / min(length, horizon),
        (steps == length - 1).astype(float),
    ]


def one_regression(X: np.ndarray, Y: np.ndarray, center: np.ndarray, penalty: float) -> np.ndarray:
    """Solve by least squares of the rows of the penalty, and express it as a map of the history."""
    level = (X @ center)[:, None]
    spread = np.maximum(X.std(axis=1, keepdims=True), 0.1)
    A, B = (X - level) / spread, (Y - level) / spread
    length = X.shape[1]
    weight = np.sqrt(penalty * np.trace(A.T @ A) / length)
    stacked = np.concatenate([A, weight * np.eye(length)])
    targets = np.concatenate([B, np.zeros((length, Y.shape[1]))])
    W = np.linalg.lstsq(stacked, targets, rcond=None)[0]
    # forecast = level + (x - level) @ W, for every x
    return np.array([center @ row + (row - center @ row) @ W for row in np.eye(length)])


def use_one_penalty(monkeypatch: pytest.MonkeyPatch, penalty: float) -> None:
    """Leave one penalty to choose from, in the default of an argument, too."""
    penalties, solve = np.array([penalty]), ridge._solve
    monkeypatch.setattr(ridge, "_PENALTIES", penalties)
    monkeypatch.setattr(ridge, "_solve", lambda A, B, p=penalties: solve(A, B, p))


@pytest.mark.parametrize("penalty", [0.01, 1.0, 10.0])
@pytest.mark.parametrize(("length", "horizon"), [(1, 1), (2, 5), (7, 3), (12, 1), (20, 6)])
def test_each_regression_is_penalized_least_squares(
    monkeypatch: pytest.MonkeyPatch, penalty: float, length: int, horizon: int
) -> None:
    """Of one penalty, by an independent solution; the mean of those of the centers is returned."""
    use_one_penalty(monkeypatch, penalty)
    monkeypatch.setattr(ridge, "_NEARLY_AS_GOOD", np.inf)
    series = [standard(noisy_season(60)), standard(noisy_season(43, seed=1)).cumsum() / 5]
    X, Y = all_windows(series, length, horizon)
    found = {tuple(c): one_regression(X, Y, c, penalty) for c in centers(length, horizon)}
    expected = np.mean(list(found.values()), axis=0)
    np.testing.assert_allclose(start(series, horizon, [length]).weights, expected, atol=1e-9)


@pytest.mark.parametrize("horizon", [1, 3, 9])
@pytest.mark.parametrize("length", [1, 3, 8, 15])
def test_columns_sum_to_one(length: int, horizon: int) -> None:
    """So a constant history is continued, and level and scale of a history do not matter."""
    found = start([standard(noisy_season(70))], horizon, [length], history=16)
    np.testing.assert_allclose(found.weights.sum(axis=0), 1, atol=1e-9)
    np.testing.assert_allclose(np.full(16, 7e5) @ found.weights, 7e5)
    history = noisy_season(16, seed=3)
    np.testing.assert_allclose(
        (1000 - 30 * history) @ found.weights, 1000 - 30 * (history @ found.weights)
    )


def test_linear_recurrences_are_continued_nearly_exactly() -> None:
    """A sine, two of them, and one that fades; the smallest penalty shrinks little."""
    steps = np.arange(240)
    for values in (
        np.sin(steps / 3),
        np.sin(steps / 2) + 0.5 * np.cos(steps / 5),
        np.exp(-steps / 300) * np.sin(steps / 4),
    ):
        values = standard(values)
        found = start([values[:200]], 6, [24, 48])
        forecast = values[152:200] @ found.weights
        naive = np.abs(values[200:206] - values[199]).mean()
        assert np.abs(forecast - values[200:206]).mean() < 0.1 * naive
        # The errors are as small, and so are the intervals.
        assert np.ptp(found.offsets) < 0.2


def test_sine_is_continued_exactly_without_a_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    use_one_penalty(monkeypatch, 1e-13)
    values = standard(np.sin(np.arange(240) / 3))
    found = start([values[:200]], 6, [12])
    np.testing.assert_allclose(values[188:200] @ found.weights, values[200:206], atol=1e-4)


def test_random_walk_is_forecast_by_its_last_value() -> None:
    """The more windows, the closer: nothing is better, and the regressions must find it."""
    rng = np.random.default_rng(0)
    series = [standard(rng.normal(size=400).cumsum()) for _ in range(20)]
    weights = start(series, 3, [10]).weights
    assert (weights[-1] > 0.85).all() and np.abs(weights[:-1]).max() < 0.15


def test_level_and_scale_of_the_series_do_not_matter() -> None:
    """Histories vary by more than the least spread before and after."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(3, 80)).cumsum(axis=1)
    one = start(list(values), 4, [8, 12])
    other = start(list(50 - 3 * values), 4, [8, 12])
    np.testing.assert_allclose(other.weights, one.weights, atol=1e-9)
    np.testing.assert_allclose(other.offsets, -one.offsets[::-1], atol=1e-9)


def test_average_is_that_of_the_nearly_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter regressions read the end of the history; a bad length has no part."""
    season = np.tile([0.0, 1, 3, 1, -2, -3, 0.5], 30) + 0.01 * noisy_season(210)
    regressions = RidgeRegressions([standard(season)], 7, LEVELS)
    found = {length: regressions._at(length) for length in (2, 14, 21)}
    losses = [loss for length in found for loss, _ in found[length]]
    limit = ridge._NEARLY_AS_GOOD * min(losses)
    kept = [
        np.pad(weights, ((30 - length, 0), (0, 0)))
        for length in found
        for loss, weights in found[length]
        if loss <= limit
    ]
    average = regressions.average(30, [21, 2, 14, 2])
    assert average is not None and 0 < len(kept) < len(losses)
    np.testing.assert_allclose(average.weights, np.mean(kept, axis=0), atol=1e-12)
    assert (average.weights[:9] == 0).all() and average.weights[9:16].any()
    assert all(loss > limit for loss, _ in found[2])
    # If all are kept, the average is that of the lengths, each of which has three regressions.
    monkeypatch.setattr(ridge, "_NEARLY_AS_GOOD", np.inf)
    singles = [regressions.average(30, [length]) for length in (14, 21)]
    together = regressions.average(30, [14, 21])
    assert together is not None
    expected = np.mean([single.weights for single in singles if single is not None], axis=0)
    np.testing.assert_allclose(together.weights, expected, atol=1e-12)


def test_fold_is_forecast_from_what_ends_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regressions of a fold do not change with the values after its start, and test these alone."""
    solved: list[tuple[np.ndarray, np.ndarray]] = []
    solve = ridge._solve

    def observe(A: np.ndarray, B: np.ndarray, *penalties: Any) -> Any:
        found = solve(A, B, *penalties)
        if not penalties:
            solved.append((np.concatenate([A, B], axis=1), found))
        return found

    monkeypatch.setattr(ridge, "_solve", observe)
    values = [standard(noisy_season(120)), standard(noisy_season(90, seed=1))]
    size = 12  # a tenth of the longest series
    start(values, 4, [6])
    before = list(solved)
    assert len(before) == 4 * 3  # folds, centers
    for fold in range(4):
        changed = [part.copy() for part in values]
        for part in changed:
            part[-size * (fold + 1) :] = 99 * np.random.default_rng(fold).normal(
                size=size * (fold + 1)
            )
        solved.clear()
        start(changed, 4, [6])
        for center in range(3):
            number = 4 * center + fold
            for one, other in zip(before[number][1], solved[number][1], strict=True):
                np.testing.assert_array_equal(one, other)
        # A change one step earlier is seen.
        for part in changed:
            part[-size * (fold + 1) - 1] = 50
        solved.clear()
        start(changed, 4, [6])
        assert not np.array_equal(before[fold][1][0], solved[fold][1][0])


def test_penalty_and_loss_are_those_of_the_folds() -> None:
    """By a loop over folds, windows and penalties."""
    series = [standard(noisy_season(100)), standard(noisy_season(61, seed=2))]
    length, horizon, size = 5, 3, 10
    found = RidgeRegressions(series, horizon, LEVELS)._at(length)
    for center, (loss, weights) in zip(centers(length, horizon), found, strict=True):
        errors = {}
        for penalty in ridge._PENALTIES:
            parts = []
            for fold in range(1, 5):
                X, Y = all_windows([values[: -size * fold] for values in series], length, horizon)
                W = one_regression(X, Y, center, penalty)
                for values in series:
                    stop = len(values) - size * (fold - 1)
                    for first in range(stop - size, stop - horizon + 1):
                        truth = values[first : first + horizon]
                        parts.append(np.abs(values[first - length : first] @ W - truth).mean())
            errors[penalty] = np.mean(parts)
        best = min(errors, key=errors.__getitem__)
        assert loss == pytest.approx(errors[best], rel=1e-9)
        expected = one_regression(*all_windows(series, length, horizon), center, best)
        np.testing.assert_allclose(weights, expected, atol=1e-9)


def test_without_room_for_folds_the_penalty_is_one() -> None:
    series = [standard(noisy_season(12, seed=seed)) for seed in range(2)]
    found = RidgeRegressions(series, 4, LEVELS)._at(5)
    X, Y = all_windows(series, 5, 4)
    assert len(X) == 8  # the least number of windows
    for center, (loss, weights) in zip(centers(5, 4), found, strict=True):
        assert loss == 1
        np.testing.assert_allclose(weights, one_regression(X, Y, center, 1.0), atol=1e-9)


def test_too_few_windows_give_nothing() -> None:
    """One window less than the least number; of several lengths, the others remain."""
    values = standard(noisy_season(16))
    assert RidgeRegressions([values[:15]], 4, LEVELS).average(5, [5]) is None
    assert RidgeRegressions([values], 4, LEVELS).average(5, [5]) is not None
    regressions = RidgeRegressions([values], 4, LEVELS)
    short = regressions.average(12, [5])
    both = regressions.average(12, [5, 12])
    assert both is not None and short is not None
    np.testing.assert_array_equal(both.weights, short.weights)
    assert RidgeRegressions([], 4, LEVELS).average(5, [5]) is None
    assert RidgeRegressions([np.full(50, np.nan)], 4, LEVELS).average(5, [5]) is None
    assert RidgeRegressions([values[:4]], 4, LEVELS).average(5, [1, 5]) is None


def test_series_shorter_than_a_window_do_not_matter() -> None:
    """If no fold is longer for them."""
    series = [standard(noisy_season(80, seed=seed)) for seed in range(2)]
    short = [np.arange(length) * 100.0 for length in range(1, 12)]
    one = start(series, 4, [8])
    other = start([*short, series[0], np.full(9, np.nan), *short, series[1]], 4, [8])
    np.testing.assert_array_equal(one.weights, other.weights)
    np.testing.assert_array_equal(one.offsets, other.offsets)


def test_missing_values_repeat_the_one_before() -> None:
    """Before the first one, the first; the arrays given stay as they are."""
    values = standard(noisy_season(80))
    gaps = np.append([np.nan, np.nan], values)
    gaps[[20, 21, 40, 81]] = np.nan
    filled = gaps.copy()
    filled[:2], filled[20:22], filled[40], filled[81] = (
        filled[2],
        filled[19],
        filled[39],
        filled[80],
    )
    given = gaps.copy()
    one, other = start([given], 4, [8]), start([filled], 4, [8])
    np.testing.assert_array_equal(one.weights, other.weights)
    np.testing.assert_array_equal(given, gaps)


def test_offsets_are_quantiles_of_the_errors() -> None:
    """In units of the deviation of each history, less their median."""
    series = [standard(noisy_season(90)), 0.01 * standard(noisy_season(50, seed=1))]
    found = start(series, 4, [6, 9], history=12)
    used = 12 - int(np.flatnonzero(found.weights.any(axis=1))[0])
    errors = []
    for values in series:
        for first in range(used, len(values) - 3):
            past, truth = values[first - used : first], values[first : first + 4]
            spread = max(past.std(), 0.1)
            errors += list((truth - past @ found.weights[-used:]) / spread)
    expected = np.quantile(errors, LEVELS) - np.median(errors)
    np.testing.assert_allclose(found.offsets, expected, atol=1e-12)
    assert found.offsets[1] == 0 and (np.diff(found.offsets) > 0).all()


def test_of_too_many_windows_a_random_part_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same one each time, of all series, and in the order of the others."""
    rng = np.random.default_rng(0)
    series = [rng.normal(size=200) for _ in range(5)]
    regressions = RidgeRegressions(series, 4, LEVELS)
    X, Y, ends = regressions._windows(6)
    monkeypatch.setattr(ridge, "_MAX_VALUES", 3000)
    parts = [regressions._windows(6) for _ in range(2)]
    for one, other in zip(*parts, strict=True):
        np.testing.assert_array_equal(one, other)
    some, targets, some_ends = parts[0]
    assert len(some) == 300 and len(X) == 5 * 191
    rows = {tuple(row): number for number, row in enumerate(np.column_stack([X, Y, ends]))}
    chosen = [rows[tuple(row)] for row in np.column_stack([some, targets, some_ends])]
    assert chosen == sorted(set(chosen))
    assert np.bincount(np.array(chosen) // 191, minlength=5).min() > 30
    assert start(series, 4, [6]).weights.shape == (6, 4)
    monkeypatch.setattr(ridge, "_MAX_VALUES", 1)
    assert len(regressions._windows(6)[0]) == 8
    assert len(RidgeRegressions([np.arange(12.0)], 4, LEVELS)._windows(6)[0]) == 3


def test_constant_series_are_continued() -> None:
    found = start([np.full(40, 1.0), np.full(30, -2.0)], 3, [4, 8])
    np.testing.assert_allclose(found.weights.sum(axis=0), 1)
    np.testing.assert_allclose(found.offsets, 0, atol=1e-12)


def test_levels_of_one_median_have_no_distance() -> None:
    found = RidgeRegressions([standard(noisy_season(60))], 3, [0.5]).average(6, [6])
    assert found is not None
    assert found.offsets.tolist() == [0]
