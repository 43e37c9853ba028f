"""Quantiles at levels that were not learned."""

import numpy as np
import pytest

from pytorch_forecasting_mlstm import InputError

pytest.importorskip("sktime.forecasting", reason="needs the extra 'sktime'")

from pytorch_forecasting_mlstm.sktime.quantiles import quantiles_at, unlearned  # noqa: E402

LEARNED = (0.05, 0.25, 0.5, 0.75, 0.95)


def test_learned_levels_are_returned_as_they_are() -> None:
    values = np.sort(np.random.default_rng(0).normal(size=(4, 5)))
    levels = [0.5 - 0.5 * 0.9, 0.5 + 0.5 * 0.9, 0.25]  # as sktime computes them
    assert unlearned(levels, LEARNED) == []
    np.testing.assert_array_equal(
        quantiles_at(levels, values, LEARNED, -np.inf), values[:, [0, 4, 1]]
    )


def test_guessed_levels_do_not_cross_the_learned_ones() -> None:
    values = np.sort(np.random.default_rng(1).normal(size=(6, 5)) ** 3)
    levels = np.linspace(0.001, 0.999, 999)
    guessed = quantiles_at(levels, values, LEARNED, -np.inf)
    assert (np.diff(guessed) >= 0).all()
    for level, known in zip(LEARNED, values.T, strict=True):
        place = np.flatnonzero(np.isclose(levels, level))[0]
        np.testing.assert_array_equal(guessed[:, place], known)
    assert len(unlearned(levels, LEARNED)) == 999 - len(LEARNED)


def test_guessed_levels_of_a_uniform_distribution_are_exact() -> None:
    values = np.array([LEARNED])
    np.testing.assert_allclose(
        quantiles_at([0.1, 0.4, 0.9], values, LEARNED, 0.0), [[0.1, 0.4, 0.9]]
    )


def test_no_quantile_is_below_the_minimum() -> None:
    values = np.array([[0.0, 1.0, 2.0, 3.0, 4.0]])
    assert quantiles_at([0.001], values, LEARNED, -np.inf) < 0
    assert quantiles_at([0.001], values, LEARNED, 0.0) == 0


def test_one_learned_level_is_not_enough_for_another() -> None:
    values = np.ones((2, 1))
    np.testing.assert_array_equal(quantiles_at([0.5], values, (0.5,), 0.0), values)
    with pytest.raises(InputError, match="two levels"):
        quantiles_at([0.9], values, (0.5,), 0.0)
