"""Datasets contain the windows of their part of the data, and no later values."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lightning import seed_everything

from helpers.tables import make_test_panel, noisy_season, read_panel, stores
from helpers.times import HORIZON, read_times_panel, times_ahead, write_times
from pytorch_forecasting_mlstm.cli.console import suppress_lightning_output
from pytorch_forecasting_mlstm.forecaster import datasets
from pytorch_forecasting_mlstm.forecaster.datasets import model_frame
from pytorch_forecasting_mlstm.forecaster.prediction import predict_future
from pytorch_forecasting_mlstm.forecaster.quantiles import QUANTILES
from pytorch_forecasting_mlstm.forecaster.splits import split_panel
from pytorch_forecasting_mlstm.forecaster.training import fit


def positions(
    data: datasets.BatchedTimeSeriesDataSet, frame: datasets.ModelFrame
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the targets in histories and horizons of two series, in units of the panel."""
    past: list[list[float]] = [[], []]
    ahead: list[list[float]] = [[], []]
    for x, (y, _) in data.to_dataloader(train=False, batch_size=64):
        for k, series in enumerate(x["groups"][:, 0].tolist()):
            past[series] += x["encoder_target"][k, : x["encoder_lengths"][k]].tolist()
            ahead[series] += y[k].tolist()
    unscaled = [
        [frame.center[s] + frame.spread[s] * np.array(values[s]) for s in range(2)]
        for values in (past, ahead)
    ]
    return unscaled[0], unscaled[1]


@pytest.mark.parametrize("length", [70, 300])
def test_training_set_contains_no_held_out_value(length: int) -> None:
    """Values equal their positions, which shows where the values of a dataset come from."""
    first = [0, length - 50]  # first position of each series
    panel = make_test_panel(np.arange(first[0], length, 1.0), np.arange(first[1], length, 1.0))
    split = split_panel(panel, horizon=5, history=10)
    frame = datasets.model_frame(panel, split)
    training = datasets.training_set(frame, split, end=split.validation)

    past, ahead = positions(training, frame)
    for s in range(2):
        assert past[s].min() == pytest.approx(first[s], abs=1e-3)
        assert past[s].max() < split.validation - 0.5
        assert ahead[s].max() == pytest.approx(split.validation - 1, abs=1e-3)
        training_values = np.arange(first[s], split.validation)
        assert frame.center[s] == pytest.approx(training_values.mean(), rel=1e-12)
        assert frame.spread[s] == pytest.approx(training_values.std(), rel=1e-12)

    for origins, begin, end in (
        (split.validation_origins, split.validation, split.test),
        (split.test_origins, split.test, split.end),
    ):
        held_out = datasets.held_out_set(training, frame, origins, split.horizon)
        assert len(held_out) == 2 * len(origins)
        for targets in positions(held_out, frame)[1]:
            assert begin - 0.5 < targets.min()
            assert targets.max() == pytest.approx(end - 1, abs=1e-3)
        x, _ = next(iter(held_out.to_dataloader(train=False, batch_size=1000)))
        assert (x["encoder_lengths"] == 10).all(), "held-out windows lack some history"


def test_model_frame_future_follows_every_series() -> None:
    panel = make_test_panel(noisy_season(60), noisy_season(40, seed=1))
    split = split_panel(panel, horizon=4)
    frame = datasets.model_frame(panel, split)
    training = datasets.training_set(frame, split, end=split.end)
    for values, ahead in zip(panel.values, positions(training, frame)[1], strict=True):
        assert ahead[-1] == pytest.approx(values[-1], rel=1e-5), (
            "the last rows are not training data"
        )
    with suppress_lightning_output():
        seed_everything(0, verbose=False)
        model = fit(training, None, epochs=1, seed=0).model
    assert "target" not in frame.future
    assert frame.rows["time_idx"].max() == split.end - 1
    assert frame.future["time_idx"].tolist() == [split.end + k for k in range(4)] * 2
    scaled = model.forecast(frame.rows, frame.future)
    assert scaled["series"].unique().tolist() == ["0", "1"]
    assert scaled["time_idx"].tolist() == frame.future["time_idx"].tolist()
    quantiles = predict_future(model, frame, -np.inf)
    expected = scaled["q0.5"].to_numpy(float).reshape(2, 4)
    expected = frame.center[:, None] + frame.spread[:, None] * expected
    # equal, except where quantiles crossed and were sorted
    assert quantiles[..., QUANTILES.index(0.5)] == pytest.approx(expected, rel=0.01)
    assert (np.diff(quantiles) >= 0).all()
    assert predict_future(model, frame, 55.0).min() == 55


def test_model_frame_long_names_keep_the_order(tmp_path: Path) -> None:
    """Long names, which fixed-width arrays would repeat in every row, stay in order."""
    frames = []
    for mark in ("", "x" * 1000):
        table = stores({f"{mark}{name}": 40 for name in "cab"}).assign(promo=mark + "no")
        table.loc[::5, "promo"] = mark + "yes"
        table.loc[table["date"] > "2024-04-27", "sales"] = np.nan
        table.to_csv(tmp_path / "t.csv", index=False)
        panel = read_panel(
            tmp_path / "t.csv",
            time="date",
            target="sales",
            group=("store",),
            known=("promo",),
            horizon=3,
        )
        frames.append(model_frame(panel, split_panel(panel, 3)).rows)
    for column in ("group_0", "known_0"):
        codes = [frame[column].astype("category").cat.codes for frame in frames]
        assert (codes[0] == codes[1]).all()
        assert frames[1][column].str.len().max() < 10


@pytest.mark.parametrize(
    ("freq", "length"), [("h", 90), ("B", 90), ("MS", 60), ("QE-DEC", 45), ("W-MON", 120)]
)
def test_model_frame_calendar_features_match_pandas(tmp_path: Path, freq: str, length: int) -> None:
    """Series start at different times, and every row has the features of its time."""
    dates = pd.date_range("2015-01-05", periods=length + HORIZON, freq=freq)
    starts = {"a": 0, "b": 7, "c": length // 2}
    times = {name: dates[start:length] for name, start in starts.items()}
    path = write_times(tmp_path / "t.csv", times)
    panel = read_times_panel(path)
    assert np.asarray(panel.starts).tolist() == list(starts.values())
    split = split_panel(panel, HORIZON)
    frame = model_frame(panel, split)
    all_rows = pd.concat([frame.rows, frame.future])
    names = [name for name in frame.known_reals if name.startswith("year")]
    for number, start in enumerate(starts.values()):
        rows = all_rows[all_rows["series"] == str(number)].sort_values("time_idx")
        assert rows["time_idx"].tolist() == list(range(start, length + HORIZON))
        year = (dates.dayofyear - 1 + (dates - dates.normalize()) / pd.Timedelta(days=1)) / 365.25
        for name in names:
            _, wave, k = name.split("_")
            expected = getattr(np, wave)(2 * np.pi * int(k) * year)[start:]
            np.testing.assert_array_equal(rows[name], expected)
    assert names or freq in ("h", "B")
    expected = dates[length:].strftime("%Y-%m-%d %H:%M:%S" if freq == "h" else "%Y-%m-%d")
    assert times_ahead(panel) == [expected.tolist()] * 3
