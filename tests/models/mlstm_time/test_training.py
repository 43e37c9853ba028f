"""Training of mLSTMTime: gradients of every parameter, learned patterns, and copied models."""

import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import Trainer, seed_everything
from pytorch_forecasting import GroupNormalizer, NaNLabelEncoder, TimeSeriesDataSet
from pytorch_forecasting.metrics import QuantileLoss
from torch import Tensor, nn

from helpers.datasets import (
    CONFIGURATIONS,
    HORIZON,
    QUIET,
    collate,
    configured,
    fit,
    ignore_flat_histories,
    make_dataset,
    make_table,
    pick_samples,
)
from helpers.models import SMALL, SilentMemory, raw_forecast
from helpers.products import alternate
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet


def gradients(model: mLSTMTime, dataset: TimeSeriesDataSet) -> dict[str, Tensor]:
    """Return the gradient of the loss by every parameter, in float64 and without dropout.

    The weights are perturbed, so that none is at a special value such as 0.
    """
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    x, y = collate(pick_samples(dataset, count=12))
    model.loss(model(x).prediction, y).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@alternate("name", CONFIGURATIONS, first=1, every=4)
def test_every_parameter_has_a_gradient(name: str) -> None:
    dataset = configured(name)
    model = mLSTMTime.from_dataset(
        dataset,
        **SMALL,
        num_layers=2,
        # a history of one step is its mean, and normalizes to 0
        instance_normalization=dataset.max_encoder_length > 1,
    )
    for parameter, gradient in gradients(model, dataset).items():
        assert gradient is not None, parameter
        assert gradient.isfinite().all(), parameter
        if dataset.max_encoder_length == 1 and ("season" in parameter or "cycle" in parameter):
            continue  # a single step has no season and no cycle
        assert gradient.abs().max() > 1e-9, parameter


def test_every_parameter_of_an_untrained_model_has_a_gradient() -> None:
    dataset = configured("all covariates")
    model = mLSTMTime.from_dataset(dataset, num_layers=3)
    x, y = collate(pick_samples(dataset), torch.float32)
    model.loss(model(x).prediction, y).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def make_sines(**changes: Any) -> tuple[TimeSeriesDataSet, TimeSeriesDataSet]:
    """Make eight noisy sines of period 24 around 10 ± 3; hold out the last 36 steps."""
    rng = np.random.default_rng(0)
    t = np.arange(200)
    series = []
    for number in range(8):
        y = 10 + 3 * np.sin(2 * np.pi * t / 24 + rng.uniform(0, 6))
        noisy = y + 0.05 * rng.normal(size=len(t))
        label = np.where(y > 10, "high", "low")
        series.append(pd.DataFrame({"series": str(number), "t": t, "y": noisy, "label": label}))
    table = pd.concat(series, ignore_index=True)
    training = make_dataset(
        table[table["t"] < 164], max_encoder_length=48, max_prediction_length=12, **changes
    )
    return training, TimeSeriesDataSet.from_dataset(training, table, min_prediction_idx=164)


def mean_error(model: mLSTMTime, dataset: TimeSeriesDataSet) -> float:
    """Return the mean absolute error of the model's predictions."""
    dataset = BatchedTimeSeriesDataSet.wrap(dataset)
    result = model.predict(dataset, return_y=True, trainer_kwargs=dict(QUIET))
    return (result.output - result.y[0]).abs().mean().item()


def test_model_learns_noisy_sines() -> None:
    """The error is below twice the noise; a constant has 1.9, and the last value 2.6."""
    training, validation = make_sines()
    sizes = {"hidden_size": 16, "num_heads": 2, "patch_length": 4}
    model = mLSTMTime.from_dataset(training, learning_rate=2e-2, **sizes)
    assert mean_error(model, validation) > 1
    fit(model, BatchedTimeSeriesDataSet.wrap(training), steps=80, batch_size=64)
    assert mean_error(model, validation) < 0.08


def test_model_learns_the_season_of_a_label() -> None:
    """The season has no noise; guessing would be right half of the time."""
    training, validation = make_sines(
        target="label", target_normalizer=NaNLabelEncoder(), time_varying_unknown_reals=[]
    )
    model = mLSTMTime.from_dataset(training, learning_rate=2e-2, hidden_size=16, num_heads=2)
    fit(model, BatchedTimeSeriesDataSet.wrap(training), steps=30, batch_size=32)
    result = model.predict(validation, return_y=True, trainer_kwargs=dict(QUIET))
    accuracy = (result.output == result.y[0]).float().mean().item()
    assert accuracy > 0.95


@ignore_flat_histories
def test_model_learns_from_a_known_covariate() -> None:
    """The history does not determine the next steps; the error of the best constant is 4."""
    rng = np.random.default_rng(0)
    table = make_table(n_series=4, steps=60)
    table["switch"] = rng.choice([-1.0, 1.0], len(table))
    table["y"] = 10 + 4 * table["switch"]
    training = make_dataset(
        table[table["t"] < 44],
        time_varying_known_reals=["switch"],
        target_normalizer=GroupNormalizer(),
    )
    validation = TimeSeriesDataSet.from_dataset(training, table, min_prediction_idx=44)
    model = mLSTMTime.from_dataset(training, learning_rate=2e-2, hidden_size=32)
    fit(model, BatchedTimeSeriesDataSet.wrap(training), steps=40, batch_size=32)
    assert mean_error(model, validation) < 0.8


def test_model_learns_from_a_static_variable_without_history() -> None:
    """Series are at 0 or 10, and forecasts have no history; the best constant has an error of 5."""
    rng = np.random.default_rng(0)
    table = pd.concat(
        pd.DataFrame(
            {
                "series": str(number),
                "t": np.arange(5),
                "region": "ab"[number % 2],
                "y": 10.0 * (number % 2) + 0.1 * rng.normal(size=5),
            }
        )
        for number in range(40)
    ).reset_index(drop=True)
    training = make_dataset(
        table,
        max_encoder_length=2,
        min_encoder_length=0,
        max_prediction_length=3,
        static_categoricals=["region"],
        target_normalizer=GroupNormalizer(),
    )
    validation = TimeSeriesDataSet.from_dataset(training, table[table["t"] < 3])
    x, _ = next(iter(validation.to_dataloader(train=False, batch_size=40)))
    assert not x["encoder_lengths"].any()
    model = mLSTMTime.from_dataset(training, learning_rate=2e-2, hidden_size=32)
    fit(model, BatchedTimeSeriesDataSet.wrap(training), steps=60, batch_size=32)
    assert mean_error(model, validation) < 1


def make_cues() -> tuple[TimeSeriesDataSet, TimeSeriesDataSet]:
    """Make noise that ends at 2 or -2, as a word at least 6 steps earlier in the history says."""
    rng = np.random.default_rng(0)
    episodes = []
    for series in range(60):
        for episode in range(2):
            up = rng.integers(2)
            y = rng.normal(size=16)
            y[12:] = (2 if up else -2) + 0.1 * rng.normal(size=4)
            cue = ["none"] * 16
            cue[rng.integers(6)] = "up" if up else "down"
            t = 16 * episode + np.arange(16)
            episodes.append(pd.DataFrame({"series": str(series), "t": t, "y": y, "cue": cue}))
    table = pd.concat(episodes, ignore_index=True)
    training = make_dataset(
        table[table["t"] < 16],
        max_encoder_length=12,
        time_varying_unknown_categoricals=["cue"],
        target_normalizer=GroupNormalizer(),
    )
    return training, TimeSeriesDataSet.from_dataset(training, table[table["t"] >= 16])


def test_memory_carries_a_cue_that_the_linear_maps_do_not_read() -> None:
    training, validation = make_cues()

    def error(seed: int, memory: nn.Module | None = None) -> float:
        seed_everything(seed, verbose=False)
        model = mLSTMTime.from_dataset(training, learning_rate=2e-2)
        if memory is not None:
            model.network.memory = memory
        fit(model, BatchedTimeSeriesDataSet.wrap(training), steps=50, batch_size=60)
        return mean_error(model, validation)

    # After 30 steps, one seed in ten has learned nothing; after 50, all seven tried are below 0.72.
    assert sorted(error(seed) for seed in range(3))[1] < 0.8
    assert error(0, SilentMemory()) > 1.5  # guessing gives 2


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_model_trains_in_other_precisions(precision: str) -> None:
    dataset = configured("all lengths")
    model = mLSTMTime.from_dataset(dataset, loss=QuantileLoss(), **SMALL)
    before = deepcopy(model.state_dict())
    trainer = fit(model, dataset, precision=precision, gradient_clip_val=0.1)
    assert trainer.callback_metrics["train_loss"].isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all()
        assert not torch.equal(parameter, before[name].to(parameter)), name


@pytest.fixture(scope="module")
def trained(tmp_path_factory: Any) -> tuple[mLSTMTime, TimeSeriesDataSet, Path]:
    """Return a model without default arguments, trained for two steps, and its checkpoint."""
    seed_everything(0, verbose=False)
    path = tmp_path_factory.mktemp("trained") / "model.ckpt"
    dataset = make_dataset(
        **{**CONFIGURATIONS["all covariates"], "min_encoder_length": 2, "weight": "weight"},
        add_relative_time_idx=True,
    )
    model = mLSTMTime.from_dataset(
        dataset,
        **SMALL,
        num_layers=2,
        dropout=0.3,
        patch_length=3,
        moving_averages=(7, 4),
        instance_normalization=False,
        loss=QuantileLoss([0.2, 0.5, 0.7]),
        learning_rate=0.02,
    )
    trainer = fit(model, dataset)
    trainer.save_checkpoint(path)
    return model, dataset, path


def test_checkpoint_gives_the_same_model(trained: tuple[mLSTMTime, Any, Path]) -> None:
    model, dataset, path = trained
    loaded = mLSTMTime.load_from_checkpoint(path)
    for name in ("patch_length", "moving_averages", "instance_normalization", "learning_rate"):
        assert loaded.hparams[name] == model.hparams[name]
    assert loaded.loss.quantiles == model.loss.quantiles
    expected = raw_forecast(model, dataset)[0]
    assert torch.equal(raw_forecast(loaded, dataset)[0], expected)
    untrained = mLSTMTime.from_dataset(dataset, **{**SMALL, "loss": QuantileLoss([0.2, 0.5, 0.7])})
    assert not torch.allclose(raw_forecast(untrained, dataset)[0], expected, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:If predicting, no randomization:UserWarning")
def test_loaded_model_predicts_a_table(trained: tuple[mLSTMTime, Any, Path]) -> None:
    model, dataset, path = trained
    loaded = mLSTMTime.load_from_checkpoint(path)
    table = make_table(steps=30)  # longer than the training data
    expected = model.predict(
        TimeSeriesDataSet.from_dataset(dataset, table, predict=True), trainer_kwargs=dict(QUIET)
    )
    result = loaded.predict(table, return_index=True, trainer_kwargs=dict(QUIET))
    assert result.output.shape == (3, HORIZON)
    assert result.index["t"].tolist() == [26, 26, 26]
    assert torch.equal(result.output, expected)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint:UserWarning")
def test_training_continues_from_a_checkpoint(trained: tuple[mLSTMTime, Any, Path]) -> None:
    model, dataset, path = trained
    loaded = mLSTMTime.load_from_checkpoint(path)
    trainer = Trainer(max_steps=4, max_epochs=-1, enable_checkpointing=False, **QUIET)
    trainer.fit(
        loaded,
        dataset.to_dataloader(train=True, batch_size=16, num_workers=0),
        dataset.to_dataloader(train=False, batch_size=16, num_workers=0),
        ckpt_path=path,
    )
    assert trainer.global_step == 4
    assert not torch.equal(raw_forecast(loaded, dataset)[0], raw_forecast(model, dataset)[0])


@pytest.mark.parametrize(
    "make_copy",
    [deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deepcopy", "pickle"],
)
@pytest.mark.parametrize("name", ["all covariates", "two targets"])
def test_copied_model_is_independent_and_trains(name: str, make_copy: Any) -> None:
    dataset = configured(name)
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    fit(model, dataset, steps=1, limit_train_batches=2)  # stops after a training step
    model_copy = make_copy(model)
    expected = raw_forecast(model, dataset)
    for of_copy, of_model in zip(raw_forecast(model_copy, dataset), expected, strict=True):
        assert torch.equal(of_copy, of_model)
    with torch.no_grad():
        model.network.residual_head.bias += 1
    changed = raw_forecast(model, dataset)
    for of_copy, of_model in zip(raw_forecast(model_copy, dataset), changed, strict=True):
        assert not torch.equal(of_copy, of_model)
    fit(model_copy.train(), dataset)
