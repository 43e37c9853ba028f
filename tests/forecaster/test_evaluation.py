"""Evaluation matches forecasts with their windows, and the report shows its results."""

import numpy as np
import pandas as pd
import pytest

from helpers.tables import make_test_panel, noisy_season
from pytorch_forecasting_mlstm.cli.report import format_metrics
from pytorch_forecasting_mlstm.forecaster.evaluation import evaluate
from pytorch_forecasting_mlstm.forecaster.prediction import WindowForecasts
from pytorch_forecasting_mlstm.forecaster.quantiles import QUANTILES
from pytorch_forecasting_mlstm.forecaster.splits import split_panel
from pytorch_forecasting_mlstm.forecaster.windows import cut_windows

LEVELS = np.array(QUANTILES)


def test_evaluate_naive_is_perfect_on_a_perfect_season() -> None:
    panel = make_test_panel(np.tile([1.0, 5, 2, 8, 3, 9, 4], 12))
    split = split_panel(panel, horizon=3)
    windows = cut_windows(panel, split, split.test_origins)
    zeros = np.zeros((*windows.actual.shape, len(LEVELS)))
    evaluation = evaluate(panel, split, WindowForecasts(zeros, windows.series, windows.origins))
    assert (evaluation.season, evaluation.naive.mae, evaluation.naive.pinball) == (7, 0, 0)
    assert evaluation.naive.coverage == 1
    assert evaluation.model.mae == pytest.approx(windows.actual.mean(), rel=1e-12)
    assert np.isnan(evaluation.model.mase), "MASE of a perfect season is undefined"
    text = format_metrics(panel, split, evaluation)
    (mase,) = (line.split() for line in text.splitlines() if line.startswith("MASE  "))
    assert mase == ["MASE", "undefined", "undefined"]


def test_evaluate_forecasts_in_any_order() -> None:
    panel = make_test_panel(noisy_season(60), noisy_season(50, seed=1))
    split = split_panel(panel, horizon=4)
    windows = cut_windows(panel, split, split.test_origins)
    exact = np.repeat(windows.actual[..., None], len(LEVELS), axis=-1)
    order = np.random.default_rng(0).permutation(len(exact))
    evaluation = evaluate(
        panel,
        split,
        WindowForecasts(exact[order], windows.series[order], windows.origins[order]),
    )
    assert (evaluation.model.mae, evaluation.model.coverage) == (0, 1)
    text = format_metrics(panel, split, evaluation)
    for line in ("pinball loss (EUR)", "MAE (EUR)", "-100 %", "100.0 %"):
        assert line in text
    assert f"Test errors: {len(exact)} forecasts of 4 steps, 2024-02-24 to 2024-02-28" not in text
    last, first = pd.Timestamp("2024-02-29"), pd.Timestamp("2024-02-29") - pd.Timedelta(days=4)
    assert f"{first:%Y-%m-%d} to {last:%Y-%m-%d}," in text
