"""benchmarks/gift_eval.py writes what the leaderboard's own evaluation would."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = ("_forecast_scores", "_gift_eval_format", "gift_eval")
LEVELS = [k / 10 for k in range(1, 10)]
EXPECTED = {
    "MSE[mean]": 44.5,
    "MSE[0.5]": 44.5,
    "MAE[0.5]": 4.166666666666667,
    "MASE[0.5]": 2.825,
    "MAPE[0.5]": 0.7732142857142857,
    "sMAPE[0.5]": 1.103030303030303,
    "MSIS": 50.80000288313513,
    "RMSE[mean]": 6.670832032063167,
    "NRMSE[mean]": 1.000624804809475,
    "ND[0.5]": 0.625,
    "mean_weighted_sum_quantile_loss": 0.5722222222222223,
}


@pytest.fixture(scope="module")
def modules() -> Iterator[SimpleNamespace]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield SimpleNamespace(**{name.strip("_"): importlib.import_module(name) for name in NAMES})


def naive_metrics(actual: list[float], quantiles: list[list[float]], scale: list[float]) -> dict:
    """Compute every metric with a loop over the values."""
    squared, absolute, scaled, relative, symmetric, scores = [], [], [], [], [], []
    losses = [0.0] * 9
    for y, q, s in zip(actual, quantiles, scale, strict=True):
        error = abs(y - q[4])
        squared.append(error**2)
        absolute.append(error)
        relative += [error / abs(y)] if y else []
        symmetric += [2 * error / (abs(y) + abs(q[4]))] if y or q[4] else []
        # 0.1 is half of 0.2, and 0.025 a quarter of 0.1: two more steps of the same size.
        low, high = q[0] - 2 * (q[1] - q[0]), q[8] + 2 * (q[8] - q[7])
        score = high - low
        score += 40 * (low - y) if y < low else 0
        score += 40 * (y - high) if y > high else 0
        scaled += [error / s] if s else []
        scores += [score / s] if s else []
        for k, level in enumerate(LEVELS):
            losses[k] += 2 * (level * (y - q[k]) if y > q[k] else (1 - level) * (q[k] - y))
    n, size = len(actual), sum(abs(y) for y in actual)
    return {
        "MSE[mean]": sum(squared) / n,
        "MSE[0.5]": sum(squared) / n,
        "MAE[0.5]": sum(absolute) / n,
        "MASE[0.5]": sum(scaled) / len(scaled),
        "MAPE[0.5]": sum(relative) / len(relative),
        "sMAPE[0.5]": sum(symmetric) / len(symmetric),
        "MSIS": sum(scores) / len(scores),
        "RMSE[mean]": math.sqrt(sum(squared) / n),
        "NRMSE[mean]": math.sqrt(sum(squared) / n) / (size / n),
        "ND[0.5]": sum(absolute) / size,
        "mean_weighted_sum_quantile_loss": sum(losses) / 9 / size,
    }


def test_metrics_are_those_of_a_loop(modules: SimpleNamespace) -> None:
    rng = np.random.default_rng(0)
    actual = rng.normal(size=40)
    quantiles = np.sort(rng.normal(size=(40, 9)), axis=1)
    scale = rng.uniform(0.5, 2, size=40)
    actual[:2] = quantiles[0] = scale[5:8] = 0
    result = modules.gift_eval_format.leaderboard_metrics(actual, quantiles, scale)
    expected = naive_metrics(actual.tolist(), quantiles.tolist(), scale.tolist())
    assert list(result) == list(expected)
    assert result == pytest.approx(expected, rel=1e-12)


def test_metrics_are_those_of_gluonts(modules: SimpleNamespace) -> None:
    """Compare with `gluonts.model.evaluation.evaluate_forecasts` of GluonTS 0.15.1.

    It got three windows of two steps as `QuantileForecast`, with a seasonality of 2. The values
    before the windows were ``[1, 3, 2, 6]``, ``[5, 5, 9, 6]`` and ``[7, 7, 7, 7]``.
    """
    quantiles = [
        [8, 9, 10, 11, 12, 13, 14, 15, 16],
        [1, 2, 3, 4, 5, 6, 7, 8, 9],
        [-4, -3, -2, -1, 1, 2, 3, 4, 5],
        [-1, 0, 1, 2, 3, 4, 5, 6, 8],
        [4, 5, 6, 7, 8, 9, 10, 11, 12],
        [-8, -3, -2, -1, 0, 1, 2, 3, 4],
    ]
    result = modules.gift_eval_format.leaderboard_metrics(
        np.array([10.0, 20, 0, -3, 7, 0]),
        np.array(quantiles, dtype=float),
        np.array([2, 2, 2.5, 2.5, 0, 0]),
    )
    assert result == pytest.approx(EXPECTED, rel=1e-6)


def test_intervals_of_exponential_tails_are_exact(modules: SimpleNamespace) -> None:
    levels = np.array(LEVELS)
    left, right = np.log(levels), -np.log(1 - levels)
    both = np.stack([np.r_[left[:5], right[5:]], np.r_[3 * left[:5], 5 + 2 * right[5:]]])
    lower, upper = modules.gift_eval_format.interval(both)
    tail = math.log(0.025)
    np.testing.assert_allclose(lower, [tail, 3 * tail])
    np.testing.assert_allclose(upper, [-tail, 5 - 2 * tail])


def test_metrics_without_a_denominator_are_empty(modules: SimpleNamespace) -> None:
    result = modules.gift_eval_format.leaderboard_metrics(
        np.array([1.0, 2.0]), np.ones((2, 9)), np.zeros(2)
    )
    empty = {name for name, value in result.items() if math.isnan(value)}
    assert empty == {"MASE[0.5]", "MSIS"}


def test_truth_and_scale_stand_beside_forecasts(modules: SimpleNamespace) -> None:
    scores = modules.forecast_scores
    days = pd.date_range("2024-01-01", periods=6)
    table = pd.DataFrame(
        {
            "item": np.repeat(["a", "b"], 6),
            "date": [*days, *days],
            "y": [1.0, 3, 2, 6, 10, 20, 5, 5, 9, 6, 7, 7],
        }
    )
    forecasts = pd.DataFrame(
        {
            "item": ["b", "a", "a"],
            "date": days[[4, 4, 5]],
            "cutoff": days[[3, 3, 4]],
            "prediction": 8.0,
            **{f"q{level:g}": 8.0 for level in LEVELS},
        }
    )
    columns = {"time": "date", "target": "y", "series": ["item"], "season": 2}
    rows = scores.match_truth(forecasts, table, **columns)
    assert rows["item"].tolist() == ["b", "a", "a"]
    assert rows["truth"].tolist() == [7, 10, 20]
    assert rows["scale"].tolist() == [(4 + 1) / 2, (1 + 3) / 2, (1 + 3 + 8) / 3]

    score = scores.score_forecasts(forecasts, table, **columns)
    quantiles = rows[[f"q{level:g}" for level in LEVELS]].to_numpy()
    metrics = modules.gift_eval_format.leaderboard_metrics(
        rows["truth"].to_numpy(), quantiles, rows["scale"].to_numpy()
    )
    assert score.mase == pytest.approx(metrics["MASE[0.5]"])
    assert score.mae == pytest.approx(metrics["MAE[0.5]"])
    assert score.crps == pytest.approx(metrics["mean_weighted_sum_quantile_loss"])


@pytest.mark.parametrize(
    ("key", "frequency", "name"),
    [
        ("ett1_H/long", "H", "ett1/H/long"),
        ("us_births_M/short", "M", "us_births/M/short"),
        ("hospital/short", "M", "hospital/M/short"),
    ],
)
def test_tasks_have_the_names_of_the_leaderboard(
    modules: SimpleNamespace, key: str, frequency: str, name: str
) -> None:
    assert modules.gift_eval_format.dataset_name(key, frequency) == name


def run_script(
    modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, folder: Path, file: Path
) -> None:
    """Run the script with two seeds, on metrics that count the calls."""
    calls = iter(range(100))

    def run(task: SimpleNamespace, seed: int) -> tuple:
        if task.key == "stop/short":
            raise KeyboardInterrupt
        metrics = dict.fromkeys(EXPECTED, float(next(calls)))
        return modules.forecast_scores.Score(1.0, 1.0, 1.0, 1.0, 1), metrics, 1.0

    monkeypatch.setattr(modules.gift_eval, "run", run)
    arguments = ["--data", str(folder), "--seeds", "2", "--leaderboard", str(file)]
    monkeypatch.setattr("sys.argv", ["gift_eval.py", *arguments])
    modules.gift_eval.main()


def write_tables(folder: Path, *names: str) -> None:
    pytest.importorskip("pyarrow")
    days = pd.date_range("2024-01-01", periods=60)
    for name in names:
        table = pd.DataFrame({"item": "a", "date": days, "y": 1.0})
        table.to_parquet(folder / f"{name}.parquet")
    keys = [f"{name}/short" for name in names]
    pd.DataFrame({"key": keys, "m": "x", "MASE": 1.0, "CRPS": 1.0}).to_csv(
        folder / "leaderboard.csv", index=False
    )


def test_rows_are_written_as_they_come(
    modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_tables(tmp_path, "ett1_D", "other_D", "stop")
    file = tmp_path / "all_results.csv"
    with pytest.raises(KeyboardInterrupt):
        run_script(modules, monkeypatch, tmp_path, file)
    assert file.read_text().splitlines() == [
        "dataset,model,eval_metrics/MSE[mean],eval_metrics/MSE[0.5],eval_metrics/MAE[0.5],"
        "eval_metrics/MASE[0.5],eval_metrics/MAPE[0.5],eval_metrics/sMAPE[0.5],eval_metrics/MSIS,"
        "eval_metrics/RMSE[mean],eval_metrics/NRMSE[mean],eval_metrics/ND[0.5],"
        "eval_metrics/mean_weighted_sum_quantile_loss,domain,num_variates",
        "ett1/D/short,mLSTMTime," + "0.5," * 11 + "Energy,7",
        "other/D/short,mLSTMTime," + "2.5," * 11 + ",",
    ]


def test_the_published_results_are_not_overwritten(
    modules: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_tables(tmp_path, "ett1_D")
    file = tmp_path / "leaderboard.csv"
    before = file.read_text()
    with pytest.raises(SystemExit):
        run_script(modules, monkeypatch, tmp_path, file)
    assert "holds the published results" in capsys.readouterr().err
    assert file.read_text() == before
