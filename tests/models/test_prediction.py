"""Predictions: complete and in order, however the loader, the trainer and the mode cut them."""

from copy import copy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from lightning import Callback, Trainer
from pytorch_forecasting.metrics import QuantileLoss
from pytorch_forecasting.models.base._base_model import Prediction
from pytorch_forecasting.utils import to_list
from torch import Tensor
from torch.utils.data import BatchSampler, SequentialSampler

from helpers.datasets import QUIET, configured, fit, make_dataset
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.models.base.prediction import Output

SMALL = {"hidden_size": 8, "num_heads": 2}
MODES: list[Any] = ["prediction", "quantiles", "raw", ("raw", "prediction")]
EVERYTHING = {
    "return_x": True,
    "return_y": True,
    "return_index": True,
    "return_decoder_lengths": True,
}


def predict(model: mLSTMTime, data: Any, **changes: Any) -> Any:
    return model.predict(data, **{"trainer_kwargs": dict(QUIET), **changes})


def assert_same(one: Any, other: Any, lengths: Tensor, raw: bool = False) -> None:
    """Compare predictions; raw output within the horizons alone, and labels, which have no NaN."""
    if isinstance(one, Prediction):
        labels = [
            not part.is_floating_point() for part in to_list(one.output) if type(part) is Tensor
        ]
        raw = raw or any(labels)
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        if raw and one.ndim > 1:
            valid = torch.arange(one.shape[1]) < lengths[:, None]
            one, other = one[valid], other[valid]
        torch.testing.assert_close(one, other, equal_nan=True)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same(one[name], other[name], lengths, raw or name == "decoder_time_idx")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for number, (part, another) in enumerate(zip(one, other, strict=True)):
            raws = raw and (not isinstance(one, Prediction) or number == 0)
            assert_same(part, another, lengths, raws)
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize(
    "name",
    [
        "all lengths",
        "categorical target",
        "two targets with weights and lags",
        "mixed targets and covariates",
    ],
)
def test_batches_of_other_widths_give_what_one_batch_gives(name: str, mode: Any) -> None:
    """The host fails on the targets, and makes labels of the inputs real numbers."""
    dataset = configured(name)
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    whole = predict(model, dataset, mode=mode, batch_size=1000, **EVERYTHING)
    lengths = whole.decoder_lengths
    assert lengths.min() < lengths.max()
    for size in (1, 7):
        parts = predict(model, dataset, mode=mode, batch_size=size, **EVERYTHING)
        assert_same(parts, whole, lengths, raw="raw" in mode)


def test_inputs_that_are_returned_can_be_read_again() -> None:
    dataset = configured("all lengths")
    model = mLSTMTime.from_dataset(dataset, loss=QuantileLoss(), **SMALL)
    got = predict(model, dataset, mode="raw", batch_size=1, **EVERYTHING)
    again = model.eval()(got.x).prediction
    valid = torch.arange(again.shape[1]) < got.decoder_lengths[:, None]
    torch.testing.assert_close(got.output.prediction[valid], again[valid])
    assert got.output.prediction[~valid].isnan().any()  # shorter batches end before


class Count(Callback):
    def __init__(self) -> None:
        self.batches = 0

    def on_predict_batch_end(self, *_: Any) -> None:
        self.batches += 1


@pytest.mark.parametrize("listed", [True, False])
def test_arguments_of_the_trainer_serve_again_and_may_have_callbacks(listed: bool) -> None:
    dataset = configured("no covariates")
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    count = Count()
    arguments = {**QUIET, "callbacks": [count] if listed else count}
    kept = copy(arguments)
    first, second = (
        model.predict(dataset, trainer_kwargs=arguments, batch_size=16) for _ in range(2)
    )
    assert arguments == kept
    assert torch.equal(first, second)
    assert len(first) == len(dataset)
    assert count.batches == 2 * -(-len(dataset) // 16)


@pytest.mark.parametrize("interval", ["batch", "epoch", "batch_and_epoch"])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_predictions_are_written(mode: Any, interval: str, tmp_path: Path) -> None:
    dataset = configured("variable decoders")
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    options = {"mode": mode, "batch_size": 20, **EVERYTHING}
    returned = predict(model, dataset, **options)
    folder = tmp_path / "not there yet"
    assert predict(model, dataset, output_dir=folder, write_interval=interval, **options) is None

    batches = -(-len(dataset) // 20)
    names = {f"predictions_{number}.pt" for number in range(batches)}
    expected = {"batch": names, "epoch": set(), "batch_and_epoch": names}[interval]
    expected |= {"predictions.pt"} if "epoch" in interval else set()
    assert {path.name for path in folder.iterdir()} == expected
    if "epoch" in interval:
        written = torch.load(folder / "predictions.pt", weights_only=False)
        assert_same(written, returned, returned.decoder_lengths)
    if "batch" in interval:
        written = torch.load(folder / f"predictions_{batches - 1}.pt", weights_only=False)
        last = written.output.prediction if mode == "raw" else written.output
        whole = returned.output.prediction if mode == "raw" else returned.output
        assert torch.equal(
            last.nan_to_num(), whole[20 * (batches - 1) :, : last.shape[1]].nan_to_num()
        )
        assert len(written.index) == len(written.y[0]) == len(last)


def test_a_trainer_predicts_by_itself() -> None:
    """Without ``model.predict``, as Lightning does with any model."""
    dataset = configured("no covariates")
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    loader = dataset.to_dataloader(train=False, batch_size=1000)
    (out,) = Trainer(**QUIET).predict(model, loader)
    assert type(out) is Output
    torch.testing.assert_close(out.prediction[..., 0], predict(model, dataset))


@pytest.mark.parametrize("mode", ["prediction", "quantiles"])
def test_steps_after_the_horizon_are_no_numbers_in_any_precision(mode: str) -> None:
    dataset = configured("variable decoders")
    model = mLSTMTime.from_dataset(dataset, **SMALL)
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


def test_a_loader_may_have_batches_of_its_own() -> None:
    dataset = configured("no covariates")
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    sampler = BatchSampler(SequentialSampler(dataset.index), batch_size=9, drop_last=False)
    loader = dataset.to_dataloader(train=False, batch_sampler=sampler)
    torch.testing.assert_close(predict(model, loader), predict(model, dataset))


class Doubled(mLSTMTime):
    """A model with a further field of output."""

    def forward(self, x: dict[str, Any]) -> Any:
        prediction = super().forward(x).prediction
        return self.to_network_output(prediction=prediction, doubled=2 * prediction)


def test_a_derived_model_may_give_more() -> None:
    dataset = configured("no covariates")
    model = Doubled.from_dataset(dataset, **SMALL)
    plain = predict(model, dataset, mode=("raw", "prediction"))
    assert torch.equal(predict(model, dataset, mode=("raw", "doubled")), 2 * plain)
    assert torch.equal(predict(model, dataset, mode="raw").doubled, 2 * plain)


@pytest.mark.parametrize("mode", ["mean", ("raw", "mean"), ("prediction", "raw"), None], ids=str)
def test_another_mode_is_refused(mode: Any) -> None:
    dataset = configured("no covariates")
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    with pytest.raises(ValueError, match=r"mode must be one of \['prediction', .*got "):
        predict(model, dataset, mode=mode)


def test_other_data_and_a_misplaced_fast_dev_run_are_refused() -> None:
    dataset = make_dataset()
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    with pytest.raises(TypeError, match="data to predict must be a DataFrame.*got list"):
        predict(model, [1, 2])
    with pytest.raises(ValueError, match="fast_dev_run must be an argument of predict"):
        predict(model, dataset, trainer_kwargs={**QUIET, "fast_dev_run": True})
    with pytest.raises(ValueError, match="got none here"):
        predict(model, dataset, trainer_kwargs={**QUIET, "limit_predict_batches": 0})


def test_a_model_in_training_is_refused_and_goes_on() -> None:
    """Predict takes a trainer of its own, and would take the model away from the first."""
    dataset = make_dataset()
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    refused: list[str] = []

    class Looks(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            with pytest.raises(ValueError, match="mLSTMTime: .* running trainer") as raised:
                predict(model, dataset)
            refused.append(str(raised.value))

    fit(model, dataset, callbacks=[Looks()])
    assert refused
    predict(model, dataset)  # afterwards
