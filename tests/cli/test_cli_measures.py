"""The reported errors are what they say, on windows that nothing was learned from."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_forecasting.metrics import MAE, QuantileLoss

from helpers.tables import noisy_season
from pytorch_forecasting_mlstm.cli.console import quiet
from pytorch_forecasting_mlstm.cli.report import error_table
from pytorch_forecasting_mlstm.forecaster import datasets
from pytorch_forecasting_mlstm.forecaster.baselines import SeasonalNaive, seasonal_naive
from pytorch_forecasting_mlstm.forecaster.calendar_features import calendar_features
from pytorch_forecasting_mlstm.forecaster.evaluation import evaluate
from pytorch_forecasting_mlstm.forecaster.frequency import TimeAxis
from pytorch_forecasting_mlstm.forecaster.metrics import errors, seasonal_scale
from pytorch_forecasting_mlstm.forecaster.panel import Table
from pytorch_forecasting_mlstm.forecaster.splits import min_rows, split_table
from pytorch_forecasting_mlstm.forecaster.training import QUANTILES, fit, predict_future
from pytorch_forecasting_mlstm.forecaster.windows import cut_windows

LEVELS = np.array(QUANTILES)


def table_of(*values: np.ndarray, freq: str = "D") -> Table:
    """Series that end on the same day."""
    longest = max(map(len, values))
    return Table(
        name="test",
        time="date",
        target="sales (EUR)",
        axis=TimeAxis(pd.Timestamp("2024-01-01"), pd.tseries.frequencies.to_offset(freq)),
        groups=pd.DataFrame({"store": [str(k) for k in range(len(values))]}),
        values=list(values),
        starts=np.array([longest - len(own) for own in values]),
    )


def test_errors_by_hand() -> None:
    rng = np.random.default_rng(0)
    actual = rng.normal(size=(5, 4))
    quantiles = np.sort(rng.normal(size=(5, 4, 7)), axis=-1)
    scale = np.array([0.5, 1.0, 2.0, 4.0, np.nan])
    got = errors(actual, quantiles[..., 3], quantiles, LEVELS, scale, (0.1, 0.9))

    absolute, scaled, pinball, inside = 0.0, 0.0, 0.0, 0
    for w in range(5):
        for t in range(4):
            y = actual[w, t]
            error = abs(y - quantiles[w, t, 3])
            absolute += error / 20
            scaled += error / scale[w] / 16 if w < 4 else 0
            inside += quantiles[w, t, 1] <= y <= quantiles[w, t, 5]
            for k, q in enumerate(LEVELS):
                f = quantiles[w, t, k]
                pinball += (q * (y - f) if y > f else (1 - q) * (f - y)) / 140
    assert got.mae == pytest.approx(absolute, rel=1e-12)
    assert got.mase == pytest.approx(scaled, rel=1e-12)
    assert got.pinball == pytest.approx(pinball, rel=1e-12)
    assert got.coverage == inside / 20


def test_errors_agree_with_the_host() -> None:
    rng = np.random.default_rng(1)
    actual, quantiles = rng.normal(size=(6, 3)), np.sort(rng.normal(size=(6, 3, 7)), axis=-1)
    got = errors(actual, quantiles[..., 3], quantiles, LEVELS, np.ones(6), (0.1, 0.9))
    y, forecast = torch.tensor(actual), torch.tensor(quantiles)
    assert got.mae == pytest.approx(float(MAE()(forecast[..., 3], y)), rel=1e-6)
    # The host doubles it, so that the median's is the absolute error.
    host = float(QuantileLoss(list(QUANTILES))(forecast, y))
    assert got.pinball == pytest.approx(host / 2, rel=1e-6)


def test_scale_is_the_seasonal_naive_error() -> None:
    values = noisy_season(50)
    by_hand = np.mean([abs(values[t] - values[t - 7]) for t in range(7, 50)])
    assert seasonal_scale(values, 7) == pytest.approx(by_hand, rel=1e-12)
    assert seasonal_scale(values[:7], 7) == seasonal_scale(values[:7], 1)
    assert np.isnan(seasonal_scale(np.ones(9), 7))


@given(
    history=st.lists(st.integers(-9, 9), min_size=1, max_size=30),
    season=st.integers(1, 12),
    horizon=st.integers(1, 30),
)
def test_naive_repeats_the_last_season(history: list[int], season: int, horizon: int) -> None:
    got = seasonal_naive(np.array(history), season, horizon)
    longer = list(history)
    for _ in range(horizon):
        longer.append(longer[-season] if len(history) >= season else history[-1])
    assert got.tolist() == longer[len(history) :]


def test_naive_season_and_spread_come_from_validation_alone() -> None:
    """A week on validation, then chaos: the test part changes nothing but the errors on it."""
    values = np.tile([1.0, 5, 2, 8, 3, 9, 4], 20)
    values += np.random.default_rng(0).normal(0, 0.1, len(values))
    table, chaos = table_of(values), values.copy()
    split = split_table(table, horizon=3)
    chaos[split.test :] = np.random.default_rng(1).normal(0, 50, len(values) - split.test)
    scale = np.array([2.0])
    naive, other = (
        SeasonalNaive.fit(
            cut_windows(own, split, split.validation_origins), [364, 7, 1], scale, LEVELS
        )
        for own in (table, table_of(chaos))
    )
    assert naive.season == other.season == 7
    assert np.array_equal(naive.spread, other.spread)

    wrong = [
        values[t : t + 3] - values[t - 7 : t - 4] for t in range(split.validation, split.test - 2)
    ]
    by_hand = np.quantile(np.array(wrong) / 2, LEVELS)  # few windows: one spread for all steps
    assert np.allclose(naive.spread, by_hand[None], rtol=1e-12)
    windows = cut_windows(table, split, split.test_origins)
    point, quantiles = naive.predict(windows, scale)
    assert np.allclose(quantiles, point[..., None] + 2 * by_hand, rtol=1e-12)


def test_naive_spread_is_per_step_where_windows_abound() -> None:
    values = np.random.default_rng(0).normal(size=700).cumsum()
    split = split_table(table_of(values), horizon=5)
    windows = cut_windows(table_of(values), split, split.validation_origins)
    naive = SeasonalNaive.fit(windows, [1], np.ones(1), LEVELS)
    wrong = windows.actual - values[windows.origins - 1][:, None]
    assert np.allclose(naive.spread, np.quantile(wrong, LEVELS, axis=0).T, rtol=1e-12)
    assert np.ptp(naive.spread[4]) > 1.5 * np.ptp(naive.spread[0]), "a random walk spreads"


def test_naive_is_perfect_on_a_perfect_season() -> None:
    table = table_of(np.tile([1.0, 5, 2, 8, 3, 9, 4], 12))
    split = split_table(table, horizon=3)
    windows = cut_windows(table, split, split.test_origins)
    zeros = np.zeros((*windows.actual.shape, len(LEVELS)))
    evaluation = evaluate(table, split, zeros, windows.series, windows.origins)
    assert (evaluation.season, evaluation.naive.mae, evaluation.naive.pinball) == (7, 0, 0)
    assert evaluation.naive.coverage == 1
    assert evaluation.model.mae == windows.actual.mean()
    assert np.isnan(evaluation.model.mase), "MASE of a perfect season is undefined"
    text = error_table(table, split, evaluation)
    (mase,) = (line.split() for line in text.splitlines() if line.startswith("MASE  "))
    assert mase == ["MASE", "undefined", "undefined"]


def test_forecasts_in_any_order_meet_their_windows() -> None:
    table = table_of(noisy_season(60), noisy_season(50, seed=1))
    split = split_table(table, horizon=4)
    windows = cut_windows(table, split, split.test_origins)
    exact = np.repeat(windows.actual[..., None], len(LEVELS), axis=-1)
    order = np.random.default_rng(0).permutation(len(exact))
    evaluation = evaluate(table, split, exact[order], windows.series[order], windows.origins[order])
    assert (evaluation.model.mae, evaluation.model.coverage) == (0, 1)
    text = error_table(table, split, evaluation)
    for line in ("pinball loss (EUR)", "MAE (EUR)", "-100 %", "100.0 %"):
        assert line in text
    assert f"Test errors: {len(exact)} forecasts of 4 steps, 2024-02-24 to 2024-02-28" not in text
    last, first = pd.Timestamp("2024-02-29"), pd.Timestamp("2024-02-29") - pd.Timedelta(days=4)
    assert f"{first:%Y-%m-%d} to {last:%Y-%m-%d}," in text


@given(
    lengths=st.lists(st.integers(20, 400), min_size=1, max_size=4),
    horizon=st.integers(1, 30),
    history=st.none() | st.integers(1, 2),
)
def test_parts_do_not_overlap(lengths: list[int], horizon: int, history: int | None) -> None:
    lengths = [max(length, min_rows(horizon)) for length in lengths]
    table = table_of(*(np.arange(float(length)) for length in lengths))
    split = split_table(table, horizon, history)
    for origins, begin, end in (
        (split.validation_origins, split.validation, split.test),
        (split.test_origins, split.test, split.end),
    ):
        assert origins.min() >= begin
        assert origins.max() == end - horizon, "the latest window is among them"
        assert len(origins) * len(lengths) <= max(1000, len(lengths))
    shortest_training = min(lengths) - (split.end - split.validation)
    assert shortest_training >= split.min_history + horizon
    assert 1 <= split.min_history <= split.history
    windows = cut_windows(table, split, split.test_origins)
    for past, actual in zip(windows.history, windows.actual, strict=True):
        assert actual.tolist() == [past[-1] + 1 + k for k in range(horizon)]


def positions(
    data: datasets.DataSet, frame: datasets.ModelFrame
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """All targets in histories and in horizons, for each of two series, in the table's unit."""
    past: list[list[float]] = [[], []]
    ahead: list[list[float]] = [[], []]
    for x, (y, _) in data.to_dataloader(train=False, batch_size=64):
        for k, series in enumerate(x["groups"][:, 0].tolist()):
            past[series] += x["encoder_target"][k, : x["encoder_lengths"][k]].tolist()
            ahead[series] += y[k].tolist()
    unscaled = [
        [frame.center[s] + frame.spread[s] * np.array(own[s]) for s in range(2)]
        for own in (past, ahead)
    ]
    return unscaled[0], unscaled[1]


@pytest.mark.parametrize("length", [70, 300])
def test_training_sees_no_held_out_value(length: int) -> None:
    """The values are their own positions: what a data set holds tells where it is from."""
    first = [0, length - 50]  # of each series, counted as in the split
    table = table_of(np.arange(first[0], length, 1.0), np.arange(first[1], length, 1.0))
    split = split_table(table, horizon=5, history=10)
    frame = datasets.model_frame(table, split)
    training = datasets.training_set(frame, split, end=split.validation)

    past, ahead = positions(training, frame)
    for s in range(2):
        assert past[s].min() == pytest.approx(first[s], abs=1e-3)
        assert past[s].max() < split.validation - 0.5
        assert ahead[s].max() == pytest.approx(split.validation - 1, abs=1e-3)
        seen = np.arange(first[s], split.validation)
        assert frame.center[s] == pytest.approx(seen.mean(), rel=1e-12)
        assert frame.spread[s] == pytest.approx(seen.std(), rel=1e-12)

    for origins, begin, end in (
        (split.validation_origins, split.validation, split.test),
        (split.test_origins, split.test, split.end),
    ):
        held_out = datasets.held_out_set(training, frame, origins, split.horizon)
        assert len(held_out) == 2 * len(origins)
        for own in positions(held_out, frame)[1]:
            assert begin - 0.5 < own.min()
            assert own.max() == pytest.approx(end - 1, abs=1e-3)
        x, _ = next(iter(held_out.to_dataloader(train=False, batch_size=1000)))
        assert (x["encoder_lengths"] == 10).all(), "held-out windows have the whole history"


def test_future_follows_every_series_and_has_no_targets() -> None:
    table = table_of(noisy_season(60), noisy_season(40, seed=1))
    split = split_table(table, horizon=4)
    frame = datasets.model_frame(table, split)
    training = datasets.training_set(frame, split, end=split.end)
    for values, ahead in zip(table.values, positions(training, frame)[1], strict=True):
        assert ahead[-1] == pytest.approx(values[-1], rel=1e-5), "it has learned from all rows"
    with quiet():
        model = fit(training, None, epochs=1, seed=0).model
    assert "target" not in frame.future
    assert frame.rows["time_idx"].max() == split.end - 1
    assert frame.future["time_idx"].tolist() == [split.end + k for k in range(4)] * 2
    scaled = model.forecast(frame.rows, frame.future)
    assert scaled["series"].unique().tolist() == ["0", "1"]
    assert scaled["time_idx"].tolist() == frame.future["time_idx"].tolist()
    got = predict_future(model, frame, -np.inf)
    expected = scaled["q0.5"].to_numpy(float).reshape(2, 4)
    expected = frame.center[:, None] + frame.spread[:, None] * expected
    assert got[..., QUANTILES.index(0.5)] == pytest.approx(expected, rel=0.01)  # but for crossings
    assert (np.diff(got) >= 0).all()
    assert predict_future(model, frame, 55.0).min() == 55


def test_time_limit(capsys: pytest.CaptureFixture[str]) -> None:
    """No epoch begins after it, and the output says so."""
    table = table_of(noisy_season(60))
    split = split_table(table, horizon=4)
    frame = datasets.model_frame(table, split)
    training = datasets.training_set(frame, split, end=split.validation)
    held_out = datasets.held_out_set(training, frame, split.validation_origins, split.horizon)
    with quiet():
        assert fit(training, held_out, epochs=3, seed=0, max_seconds=1e-3).epoch == 1
    printed = capsys.readouterr().out
    assert "epoch   1/3 " in printed
    assert "epoch   2/3 " not in printed
    assert "Stopped after 0.001 s" in printed


def test_calendar() -> None:
    """Cycles seen twice or more; each repeats itself exactly, and none is constant."""
    hourly = TimeAxis(pd.Timestamp("2024-01-01"), pd.tseries.frequencies.to_offset("h"))
    month = calendar_features(hourly, np.arange(24 * 35), past=24 * 28)
    assert {name.split("_")[0] for name in month} == {"day", "week"}
    for name in month:
        period = 24 if name.startswith("day") else 168
        assert np.allclose(month[name][period:], month[name][:-period], atol=1e-9)
        assert month[name].std() > 0.5
    assert set(calendar_features(hourly, np.arange(100), past=72)) == {
        "day_sin_1",
        "day_cos_1",
        "day_sin_2",
        "day_cos_2",
    }
    monthly = TimeAxis(pd.Timestamp("2020-01-31"), pd.offsets.MonthEnd())
    assert set(calendar_features(monthly, np.arange(40), past=36)) == {
        "year_sin_1",
        "year_cos_1",
        "year_sin_2",
        "year_cos_2",
    }
    assert calendar_features(monthly, np.arange(40), past=23).empty
    assert calendar_features(TimeAxis(0, 1), np.arange(40), past=30).shape == (40, 0)
