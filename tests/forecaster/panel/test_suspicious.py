"""Faults that are planted are found; what is rare but true is left alone."""

import time
from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from helpers.tables import noisy_season
from pytorch_forecasting_mlstm.forecaster.panel.suspicion_text import describe, summarize
from pytorch_forecasting_mlstm.forecaster.panel.suspicious import (
    Suspicion,
    find_suspicious,
    is_outlier,
)

HORIZON, SEASON = 7, 7
Random = np.random.Generator


def find(values: np.ndarray) -> list[Suspicion]:
    return find_suspicious([values], HORIZON, SEASON)


@given(
    st.integers(30, 300),
    st.floats(0, 0.999),
    st.sampled_from([1e9, -1e9, 1e5, -9999.0]),
    st.floats(1e-3, 1e3),
    st.integers(0, 3),
)
def test_planted_outlier_is_found_alone(
    length: int, where: float, value: float, unit: float, seed: int
) -> None:
    values = noisy_season(length, seed=seed)
    row = int(where * length)
    values[row] = value
    [suspicion] = find(values * unit)
    assert (suspicion.kind, suspicion.rows) == ("outlier", (row,))
    assert suspicion.values == (value * unit,)
    rest = np.delete(values, row) * unit
    assert suspicion.rest == (rest.min(), rest.max())


def test_outliers_are_rows_of_the_series_with_its_gaps() -> None:
    values = noisy_season(100)
    values[[3, 4, 60]] = np.nan
    values[[50, 80]] = 1e9, -1e7
    others = noisy_season(90, seed=1)
    found = find_suspicious([others, values], HORIZON, SEASON)
    [suspicion] = found
    assert (suspicion.series, suspicion.rows) == (1, (50, 80))
    masks = is_outlier(found, [90, 100])
    assert not masks[0].any()
    assert masks[1].nonzero()[0].tolist() == [50, 80]


@pytest.mark.parametrize("code", [-999.0, -9999.0, 99999.0])
def test_codes_for_missing_values_may_be_many(code: float) -> None:
    values = noisy_season(400) * 4  # up to 350: -999 is only three times the range away
    rows = np.random.default_rng(0).choice(400, 15, replace=False)
    values[rows] = code
    [suspicion] = find(values)
    assert suspicion.rows == tuple(sorted(rows.tolist()))


def test_outlier_among_small_counts_and_constant_values() -> None:
    counts = np.random.default_rng(0).poisson(1.0, 200).astype(float)
    for values in (counts, np.full(50, 100.0)):
        values[20] = 1e9
        assert find(values)[0].rows == (20,)


@pytest.mark.parametrize("factor", [0.001, 0.1, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize("start", [15, 50, 80])
def test_unit_change_is_found(factor: float, start: int) -> None:
    values = noisy_season(100)
    values[start:] *= factor
    [suspicion] = find(values)
    assert (suspicion.kind, suspicion.first, suspicion.last) == ("unit change", start, 99)
    assert suspicion.values == (pytest.approx(factor),)
    values[80:90] = noisy_season(100)[80:90]  # back and forth is not a change of the unit
    if start < 80:
        assert not find(values)


def test_unit_change_for_a_time_is_found() -> None:
    values = noisy_season(200)
    values[60:100] *= 1000
    [suspicion] = find(values)
    assert (suspicion.first, suspicion.last, suspicion.values) == (60, 99, (1000.0,))


def test_constant_stretch_is_found() -> None:
    values = noisy_season(200)
    values[60:100] = values[60]
    [suspicion] = find(values)
    assert suspicion.kind == "constant stretch"
    assert (suspicion.first, suspicion.last, suspicion.values) == (60, 99, (values[60],))
    assert not find_suspicious([values], horizon=40, season=1)


def _days(length: int) -> np.ndarray:
    return np.arange(length)


#: Rare but true: what the values of real tables look like.
TRUE_DATA: dict[str, Callable[[Random, int], np.ndarray]] = {
    "christmas": lambda rng, n: noisy_season(n) * np.where(_days(n) % 365 < 3, 8, 1),
    "one_black_friday": lambda rng, n: noisy_season(n) * np.where(_days(n) == 20, 10, 1),
    "closed_days": lambda rng, n: rng.normal(100, 1, n) * (rng.random(n) > 2 / n),
    "pandemic": lambda rng, n: (
        noisy_season(n) * np.where(_days(n) > 0.6 * n, 0.04 * 1.03 ** (_days(n) - 0.6 * n), 1)
    ),
    "collapse": lambda rng, n: noisy_season(n) * np.where(_days(n) > 0.7 * n, 0.05, 1),
    "floods": lambda rng, n: 20 + rng.lognormal(1, 1.5, n),
    "claims": lambda rng, n: rng.pareto(2.0, n) + 1,
    "sparse_counts": lambda rng, n: rng.poisson(0.1, n),
    "lumpy_demand": lambda rng, n: rng.negative_binomial(0.3, 0.05, n),
    "bulk_orders": lambda rng, n: (
        rng.poisson(0.5, n) + (rng.random(n) < 2 / n) * rng.integers(10, 200)
    ),
    "prices": lambda rng, n: np.repeat(rng.uniform(5, 15, n), rng.geometric(0.05, n))[:n],
    "growth": lambda rng, n: np.exp(0.01 * _days(n) + rng.normal(0, 0.02, n)),
    "random_walk": lambda rng, n: np.exp(rng.normal(0, 0.2, n).cumsum()),
    "returns": lambda rng, n: rng.standard_t(3, n),
    "solar": lambda rng, n: np.maximum(0, np.sin(_days(n) / 24 * 2 * np.pi)) * rng.random(n),
    "not_yet_sold": lambda rng, n: np.where(_days(n) < n // 2, 0, noisy_season(n)),
    "peg_that_ends": lambda rng, n: np.where(_days(n) < n - 1, rng.normal(1.2, 1e-3, n), 1.0),
    "constant": lambda rng, n: np.full(n, 5.0),
    "zeros": lambda rng, n: np.zeros(n),
}


@pytest.mark.parametrize("length", [30, 100, 730])
@pytest.mark.parametrize("name", TRUE_DATA)
def test_true_data_raise_no_alarm(name: str, length: int) -> None:
    rng = np.random.default_rng(0)
    series = [np.asarray(TRUE_DATA[name](rng, length), dtype=float) for _ in range(20)]
    assert find_suspicious(series, HORIZON, SEASON) == []


@given(
    st.lists(
        st.floats(allow_nan=True, allow_infinity=False) | st.sampled_from([0.0, 1.0, -999.0]),
        max_size=60,
    )
)
def test_any_numbers_can_be_searched(values: list[float]) -> None:
    """Zeros and gaps are never masked, and never more than one row of 20 and five more."""
    series = np.array(values, dtype=float)
    with np.errstate(over="ignore", invalid="ignore"):
        found = find_suspicious([series], HORIZON, SEASON)
    [mask] = is_outlier(found, [len(series)])
    assert not mask[(series == 0) | np.isnan(series)].any()
    assert mask.sum() <= 2 * (5 + len(series) // 20)


@given(st.sampled_from(sorted(TRUE_DATA)), st.sampled_from([1e9, -1e7]), st.integers(0, 99))
def test_suspicions_do_not_depend_on_the_unit(name: str, value: float, row: int) -> None:
    values = np.asarray(TRUE_DATA[name](np.random.default_rng(1), 100), dtype=float)
    values[row] = value
    expected = [(one.kind, one.rows) for one in find(values)]
    assert [(one.kind, one.rows) for one in find(values * 2.0**10)] == expected


@pytest.mark.parametrize("length", [100, 100_000])
def test_search_is_fast(length: int) -> None:
    values = [noisy_season(length) for _ in range(100_000 // length)]
    start = time.process_time()
    find_suspicious(values, HORIZON, SEASON)
    assert time.process_time() - start < 1.0


def test_summary_names_five_and_counts_the_others() -> None:
    outlier = Suspicion(0, "outlier", (1, 4), (-9999.0, -9999.0), (3.0, 9.0))
    stretch = Suspicion(1, "constant stretch", range(2, 5), (0.0,), (3.0, 9.0))
    times = pd.date_range("2024-01-01 00:00", periods=5, freq="12h")
    text = summarize([stretch] * 7 + [outlier], "store={}".format, lambda series: times)
    assert text.startswith(
        "store=0: 2 values such as -9999 from 2024-01-01 12:00:00 to 2024-01-03 are far from all "
        "others, 3 to 9; store=1: 0 in all 3 rows from 2024-01-02 to 2024-01-03, while other"
    )
    assert text.count("store=") == 5
    assert "; and 3 more; outliers count as missing: correct them; leave rows empty" in text
    assert "unit" not in text


def test_unit_changes_are_described() -> None:
    change = Suspicion(0, "unit change", range(2, 5), (10.0,), (3.0, 9.0))
    assert describe(change, "data", range(5)) == (
        "data: values from 2 on are about 10 times as large as before"
    )
    until = describe(change, "data", range(6))
    assert until == "data: values from 2 to 4 are about 10 times as large as all others"
