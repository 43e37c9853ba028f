"""Predictions are complete and in order, whatever the loader, the trainer and the mode."""

from copy import copy
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from lightning import Callback, Trainer
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.metrics import QuantileLoss
from pytorch_forecasting.models.base._base_model import Prediction
from pytorch_forecasting.utils import to_list
from torch import Tensor
from torch.utils.data import BatchSampler, SequentialSampler

from helpers.datasets import (
    CONFIGURATIONS,
    QUIET,
    configured,
    fit,
    make_dataset,
    make_table,
)
from helpers.models import SMALL, small_model
from helpers.products import spread
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.models.base.prediction import Output

MODES: list[Any] = ["prediction", "quantiles", "raw", ("raw", "prediction")]
EVERYTHING = {
    "return_x": True,
    "return_y": True,
    "return_index": True,
    "return_decoder_lengths": True,
}


def predict(model: mLSTMTime, data: Any, **changes: Any) -> Any:
    return model.predict(data, **{"trainer_kwargs": dict(QUIET), **changes})


def assert_same(got: Any, expected: Any, lengths: Tensor, raw: bool = False) -> None:
    """Compare predictions. Raw output and labels, which have no NaN, only within the horizons."""
    if isinstance(got, Prediction):
        labels = [
            not part.is_floating_point() for part in to_list(got.output) if type(part) is Tensor
        ]
        raw = raw or any(labels)
    assert type(got) is type(expected)
    if isinstance(got, Tensor):
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        if raw and got.ndim > 1:
            valid = torch.arange(got.shape[1]) < lengths[:, None]
            got, expected = got[valid], expected[valid]
        torch.testing.assert_close(got, expected, equal_nan=True)
    elif isinstance(got, dict):
        assert got.keys() == expected.keys()
        for name in got:
            assert_same(got[name], expected[name], lengths, raw or name == "decoder_time_idx")
    elif isinstance(got, list | tuple):
        assert len(got) == len(expected)
        for number, (item, expected_item) in enumerate(zip(got, expected, strict=True)):
            raw_item = raw and (not isinstance(got, Prediction) or number == 0)
            assert_same(item, expected_item, lengths, raw_item)
    elif isinstance(got, pd.DataFrame):
        pd.testing.assert_frame_equal(got, expected)
    else:
        assert got == expected


@cache
def few_windows(name: str) -> tuple[TimeSeriesDataSet, mLSTMTime]:
    """Return a small dataset of a configuration and a model for it, both cached."""
    dataset = make_dataset(make_table(n_series=2, steps=15), **CONFIGURATIONS[name])
    assert len(dataset) > 14  # three batches of 7
    return dataset, mLSTMTime.from_dataset(dataset, **SMALL)


@spread(
    "name, mode",
    [
        "all lengths",
        "categorical target",
        "two targets with weights and lags",
        "mixed targets and covariates",
    ],
    MODES,
)
def test_predict_in_batches_of_any_width_equals_one_batch(name: str, mode: Any) -> None:
    """pytorch-forecasting fails on the targets, and converts labels in the inputs to floats."""
    dataset, model = few_windows(name)
    whole = predict(model, dataset, mode=mode, batch_size=1000, **EVERYTHING)
    lengths = whole.decoder_lengths
    assert lengths.min() < lengths.max()
    for size in (1, 7):
        parts = predict(model, dataset, mode=mode, batch_size=size, **EVERYTHING)
        assert_same(parts, whole, lengths, raw="raw" in mode)


def test_predict_returns_inputs_that_the_model_can_read() -> None:
    dataset = configured("all lengths")
    model = mLSTMTime.from_dataset(dataset, loss=QuantileLoss(), **SMALL)
    got = predict(model, dataset, mode="raw", batch_size=1, **EVERYTHING)
    again = model.eval()(got.x).prediction
    valid = torch.arange(again.shape[1]) < got.decoder_lengths[:, None]
    torch.testing.assert_close(got.output.prediction[valid], again[valid])
    assert got.output.prediction[~valid].isnan().any()  # shorter batches end earlier


class Count(Callback):
    def __init__(self) -> None:
        self.batches = 0

    def on_predict_batch_end(self, *_: Any) -> None:
        self.batches += 1


@pytest.mark.parametrize("listed", [True, False])
def test_predict_leaves_trainer_kwargs_alone_and_runs_their_callbacks(listed: bool) -> None:
    dataset, model = configured("no covariates"), small_model("no covariates")
    count = Count()
    arguments = {**QUIET, "callbacks": [count] if listed else count}
    original = copy(arguments)
    first, second = (
        model.predict(dataset, trainer_kwargs=arguments, batch_size=16) for _ in range(2)
    )
    assert arguments == original
    assert torch.equal(first, second)
    assert len(first) == len(dataset)
    assert count.batches == 2 * -(-len(dataset) // 16)


@spread("mode, interval", MODES, ["batch", "epoch", "batch_and_epoch"])
def test_predict_writes_predictions(mode: Any, interval: str, tmp_path: Path) -> None:
    dataset, model = configured("variable decoders"), small_model("variable decoders")
    options = {"mode": mode, "batch_size": 20, **EVERYTHING}
    returned = predict(model, dataset, **options)
    folder = tmp_path / "new"
    assert predict(model, dataset, output_dir=folder, write_interval=interval, **options) is None

    batches = -(-len(dataset) // 20)
    of_batches = {f"predictions_{number}.pt" for number in range(batches)}
    names = {"batch": of_batches, "epoch": set(), "batch_and_epoch": of_batches}[interval]
    names |= {"predictions.pt"} if "epoch" in interval else set()
    assert {path.name for path in folder.iterdir()} == names
    if "epoch" in interval:
        written = torch.load(folder / "predictions.pt", weights_only=False)
        assert_same(written, returned, returned.decoder_lengths)
    if "batch" in interval:
        written = torch.load(folder / f"predictions_{batches - 1}.pt", weights_only=False)
        last = written.output.prediction if mode == "raw" else written.output
        expected = returned.output.prediction if mode == "raw" else returned.output
        assert torch.equal(
            last.nan_to_num(), expected[20 * (batches - 1) :, : last.shape[1]].nan_to_num()
        )
        assert len(written.index) == len(written.y[0]) == len(last)


def test_trainer_predict_returns_the_output() -> None:
    """``model.predict`` is not needed: this works as for any Lightning model."""
    dataset, model = configured("no covariates"), small_model("no covariates")
    loader = dataset.to_dataloader(train=False, batch_size=1000)
    (out,) = Trainer(**QUIET).predict(model, loader)
    assert type(out) is Output
    torch.testing.assert_close(out.prediction[..., 0], predict(model, dataset))


@pytest.mark.parametrize("mode", ["prediction", "quantiles"])
def test_predict_is_nan_after_the_horizon_in_double_precision(mode: str) -> None:
    dataset, model = configured("variable decoders"), small_model("variable decoders")
    got = predict(
        model,
        dataset,
        mode=mode,
        trainer_kwargs={**QUIET, "precision": "64-true"},
        return_decoder_lengths=True,
    )
    assert got.output.dtype == torch.float64
    valid = torch.arange(got.output.shape[1]) < got.decoder_lengths[:, None]
    assert got.output[valid].isfinite().all()
    assert got.output[~valid].isnan().all()


def test_predict_accepts_a_loader_with_a_batch_sampler() -> None:
    dataset, model = configured("no covariates"), small_model("no covariates")
    sampler = BatchSampler(SequentialSampler(dataset.index), batch_size=9, drop_last=False)
    loader = dataset.to_dataloader(train=False, batch_sampler=sampler)
    torch.testing.assert_close(predict(model, loader), predict(model, dataset))


class Doubled(mLSTMTime):
    """A model with a further field of output."""

    def forward(self, x: dict[str, Any]) -> Any:
        prediction = super().forward(x).prediction
        return self.to_network_output(prediction=prediction, doubled=2 * prediction)


def test_predict_of_a_subclass_with_more_output_fields() -> None:
    dataset = configured("no covariates")
    model = Doubled.from_dataset(dataset, **SMALL)
    plain = predict(model, dataset, mode=("raw", "prediction"))
    assert torch.equal(predict(model, dataset, mode=("raw", "doubled")), 2 * plain)
    assert torch.equal(predict(model, dataset, mode="raw").doubled, 2 * plain)


@pytest.mark.parametrize("mode", ["mean", ("raw", "mean"), ("prediction", "raw"), None], ids=str)
def test_predict_rejects_an_unknown_mode(mode: Any) -> None:
    dataset, model = configured("no covariates"), small_model("no covariates")
    with pytest.raises(ValueError, match=r"mode must be one of \['prediction', .*got "):
        predict(model, dataset, mode=mode)


def test_predict_rejects_other_data_and_a_misplaced_fast_dev_run() -> None:
    dataset, model = configured("no covariates"), small_model("no covariates")
    with pytest.raises(TypeError, match="data to predict must be a DataFrame.*got list"):
        predict(model, [1, 2])
    with pytest.raises(ValueError, match="fast_dev_run must be an argument of predict"):
        predict(model, dataset, trainer_kwargs={**QUIET, "fast_dev_run": True})
    with pytest.raises(ValueError, match="got none here"):
        predict(model, dataset, trainer_kwargs={**QUIET, "limit_predict_batches": 0})


def test_predict_rejects_a_model_in_training_which_continues() -> None:
    """``predict`` starts its own trainer, which would detach the model from the first."""
    dataset = make_dataset()
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    rejected: list[str] = []

    class PredictInTraining(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            with pytest.raises(ValueError, match="mLSTMTime: .* a Trainer is running") as raised:
                predict(model, dataset)
            rejected.append(str(raised.value))

    fit(model, dataset, callbacks=[PredictInTraining()])
    assert rejected
    predict(model, dataset)  # afterwards


def test_predict_names_an_argument_that_it_does_not_have() -> None:
    dataset = configured("no covariates")
    with pytest.raises(TypeError, match=r"^mLSTMTime.predict: there is no argument 'horizon'; "):
        small_model("no covariates").predict(dataset, horizon=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"\.predict: batch_size must be at least 1, got 0"),
        ({"batch_size": "8"}, r"\.predict: batch_size must be an int, got '8'"),
        ({"num_workers": -1}, r"\.predict: num_workers must be at least 0, got -1"),
        ({"mode_kwargs": 3}, r"\.predict: mode_kwargs must be a dict, got 3; for example"),
        ({"trainer_kwargs": [1]}, r"\.predict: trainer_kwargs must be a dict, got \[1\]"),
        ({"mode_kwargs": {"quantiles": 0.5}}, ": quantiles must be a list of levels"),
        ({"mode_kwargs": {"quantiles": [None]}}, ": quantiles must be a list of levels"),
        ({"mode_kwargs": {"n_samples": 0}}, ": n_samples must be at least 1, got 0"),
        ({"mode_kwargs": {"n_samples": 2**70}}, ": n_samples must be at most 1000000, got"),
    ],
    ids=str,
)
def test_predict_names_arguments_of_a_wrong_type_or_size(
    arguments: dict[str, Any], message: str
) -> None:
    dataset = configured("no covariates")
    model = mLSTMTime.from_dataset(dataset, **SMALL, loss=QuantileLoss([0.1, 0.5, 0.9]))
    with pytest.raises((TypeError, ValueError), match=f"^mLSTMTime{message}"):
        predict(model, dataset, mode="quantiles", **arguments)
