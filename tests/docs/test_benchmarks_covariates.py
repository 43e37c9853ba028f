"""The opponent of benchmarks/covariates.py sees no future, and scores follow their definitions."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = ("_forecast_scores", "_covariate_tables", "_forecast_panel", "_lightgbm_features")
HORIZON, WINDOWS = 4, 2


@pytest.fixture(scope="module")
def modules() -> Iterator[SimpleNamespace]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield SimpleNamespace(**{name.strip("_"): importlib.import_module(name) for name in NAMES})


@pytest.fixture(scope="module")
def trees(modules: SimpleNamespace) -> Any:
    pytest.importorskip("lightgbm")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        return importlib.import_module("_lightgbm_forecast")


def make_task(modules: SimpleNamespace, steps: int = 60) -> Any:
    rng = np.random.default_rng(0)
    t = np.arange(steps)
    parts = [
        pd.DataFrame(
            {
                "day": pd.date_range("2024-01-01", periods=steps),
                "shop": shop,
                "y": 10 + size * (t % 7) + rng.normal(size=steps),
                "promotion": rng.choice(["none", "some"], steps),
                "price": rng.normal(size=steps),
                "rain": rng.normal(size=steps),
                "area": size,
            }
        )
        for size, shop in enumerate("abc", start=1)
    ]
    spec = modules.covariate_tables.Table(
        lambda folder: pd.concat(parts),
        horizon=HORIZON,
        seasons=(7, 14),
        time="day",
        target="y",
        group=("shop",),
        known=("promotion", "price"),
        past=("rain",),
        static=("area",),
        windows=WINDOWS,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(modules.covariate_tables.TABLES, "shops", spec)
        return modules.covariate_tables.read_task("shops", Path(), development=False)


def inputs_of(modules: SimpleNamespace, recursive: bool, difference: bool = True) -> Any:
    return modules.lightgbm_features.Inputs(
        recursive=recursive,
        difference=difference,
        lags=5,
        cycles=3,
        rolling=(3, 7),
        known_at_lags=True,
    )


def change_after(panel: Any, time: int) -> Any:
    """Change all that is not known at a time."""
    values, past = panel.values.copy(), panel.past.copy()
    values[:, time:] = 1e3 - 7 * values[:, time:]
    past[:, time:] = 1e3
    return replace(panel, values=values, past=past)


@pytest.mark.parametrize("recursive", [False, True])
def test_trees_do_not_see_the_future(modules: SimpleNamespace, trees: Any, recursive: bool) -> None:
    task = make_task(modules)
    panel = modules.forecast_panel.to_panel(task)
    settings = {"objective": "l2", "min_child_samples": 3}
    choice = trees.Choice(inputs_of(modules, recursive), 1.0, settings)
    cut = 52

    def forecast(panel: Any) -> np.ndarray:
        trained = trees.fit(panel, task, choice, cut, max_rows=300, trees=10, seed=0)
        return trees.forecast(trained, panel, [cut], 10)

    expected = forecast(panel)
    assert expected.shape == (1, 3, HORIZON)
    np.testing.assert_array_equal(forecast(change_after(panel, cut)), expected)
    assert not np.array_equal(forecast(change_after(panel, cut - 1)), expected)
    known = panel.known.copy()
    known[:, cut:] += 1
    assert not np.array_equal(forecast(replace(panel, known=known)), expected)


def test_tuning_does_not_see_the_test_windows(modules: SimpleNamespace, trees: Any) -> None:
    task = make_task(modules)
    days = np.sort(task.data["day"].unique())
    first, last = len(days) - WINDOWS * HORIZON, len(days) - HORIZON

    def forecast(changed_from: int) -> pd.DataFrame:
        data = task.data.copy()
        later = data["day"] >= days[changed_from]
        data.loc[later, ["y", "rain"]] = data.loc[later, ["y", "rain"]] * 3 + 500
        return trees.lightgbm_forecast(replace(task, data=data), seed=0, trials=2)

    expected = forecast(changed_from=len(days) - 1)  # the last value is the input of nothing
    is_first = expected["cutoff"] == days[first - 1]
    assert is_first.sum() == 3 * HORIZON
    pd.testing.assert_frame_equal(forecast(last), expected)
    pd.testing.assert_frame_equal(forecast(first)[is_first], expected[is_first])
    assert not forecast(first - 1)[is_first].equals(expected[is_first])


@pytest.mark.parametrize("recursive", [False, True])
def test_inputs_are_the_values_at_their_lags(modules: SimpleNamespace, recursive: bool) -> None:
    task = make_task(modules)
    panel = modules.forecast_panel.to_panel(task)
    t = np.arange(60.0)
    panel = replace(panel, past=np.tile(t[:, None], (3, 1, 1)))
    inputs = replace(inputs_of(modules, recursive), difference=False, known_at_lags=False)
    features = modules.lightgbm_features.Features(panel, (7,), HORIZON, inputs)
    ahead = 1 if recursive else 3
    rows = modules.lightgbm_features.Rows(np.array([1]), np.array([40]), np.array([ahead]))
    (row,) = features(np.tile(t, (3, 1)), rows)
    lags, rolling, cycles, spreads = row[-13:-8], row[-8:-6], row[-6:-2], row[-2:]
    newest = 40 - ahead
    np.testing.assert_array_equal(lags, newest - np.arange(5))
    np.testing.assert_array_equal(rolling, [newest - 1, newest - 3])
    np.testing.assert_array_equal(cycles, [33, 26, 19, 26])
    np.testing.assert_allclose(spreads, [np.std([0, 1, 2]), np.std(np.arange(7))])
    past = row[-15:-13]
    np.testing.assert_array_equal(past, [40 - (HORIZON if recursive else ahead), 33])


def test_development_forecasts_the_windows_before_the_test(modules: SimpleNamespace) -> None:
    tables = modules.covariate_tables
    data = pd.DataFrame({"day": pd.date_range("2024-01-01", periods=50), "y": np.arange(50.0)})
    spec = tables.Table(
        lambda folder: data, horizon=5, seasons=(1,), time="day", target="y", windows=2, rows=20
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tables.TABLES, "days", spec)
        test = tables.read_task("days", Path(), development=False)
        development = tables.read_task("days", Path(), development=True)
    assert test.data["y"].tolist() == list(range(30, 50))
    assert development.data["y"].tolist() == list(range(20, 40))
    assert modules.forecast_panel.to_panel(development).cutoffs == (10, 15)


def test_windows_are_a_tenth_of_the_shortest_series(modules: SimpleNamespace) -> None:
    tables = modules.covariate_tables
    for steps, expected in ((30, 1), (201, 3), (5000, 10)):
        data = pd.DataFrame({"day": pd.date_range("2000-01-01", periods=steps), "y": 0.0})
        spec = tables.Table(
            lambda folder, data=data: data, horizon=10, seasons=(1,), time="day", target="y"
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(tables.TABLES, "days", spec)
            assert tables.read_task("days", Path(), development=False).windows == expected


def test_scores_are_those_of_the_definitions(modules: SimpleNamespace) -> None:
    scores = modules.forecast_scores
    days = pd.date_range("2024-01-01", periods=6)
    table = pd.DataFrame({"day": days, "y": [1.0, 3.0, 2.0, 6.0, 10.0, 20.0]})
    forecasts = pd.DataFrame({"day": days[4:], "cutoff": days[3], "prediction": [12.0, 17.0]})
    for level in scores.LEVELS:
        forecasts[f"q{level:g}"] = [12.0, 30.0]
    result = scores.score_forecasts(forecasts, table, time="day", target="y", series=[], season=2)
    scale = (abs(2 - 1) + abs(6 - 3)) / 2
    assert result.mase == pytest.approx(2.5 / scale)
    assert result.mae == pytest.approx(2.5)
    # A forecast that is too high by e costs 2 e (1 - q); the mean over 0.1 ... 0.9 is e.
    assert result.crps == pytest.approx((2 + 10) / 30)
    assert (result.coverage, result.values) == (0.0, 2)
    with pytest.raises(ValueError, match="1 of 2 rows have none"):
        scores.score_forecasts(
            forecasts.replace(17.0, np.nan), table, time="day", target="y", series=[], season=2
        )


def test_the_script_imports_without_the_opponent() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        patch.setitem(sys.modules, "lightgbm", None)
        assert set(importlib.import_module("covariates").MODELS) == {
            "ours",
            "lightgbm",
            "auto_ets",
            "naive",
        }


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("difference", [False, True])
def test_short_series_are_learned_though_a_season_is_longer(
    modules: SimpleNamespace, trees: Any, recursive: bool, difference: bool
) -> None:
    task = make_task(modules)
    task = replace(task, spec=replace(task.spec, seasons=(1, 52)))
    panel = modules.forecast_panel.to_panel(task)
    panel = replace(panel, values=np.tile([[1.0], [5.0], [9.0]], (1, 60)))
    choice = trees.Choice(inputs_of(modules, recursive, difference), 1.0, {"min_child_samples": 1})
    trained = trees.fit(panel, task, choice, 40, max_rows=300, trees=400, seed=0)
    result = trees.forecast(trained, panel, [40, 44], 400)
    expected = np.broadcast_to(panel.values[:, :HORIZON], result.shape)
    np.testing.assert_allclose(result, expected, atol=0.01)
