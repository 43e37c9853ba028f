"""Arguments of mLSTMTime take effect, and invalid ones raise."""

from typing import Any

import pytest
import torch
from pytorch_forecasting.metrics import MAE
from pytorch_forecasting.utils import to_list
from torch import nn

from helpers.datasets import (
    CONFIGURATIONS,
    HORIZON,
    collate,
    configured,
    make_dataset,
    make_table,
    pick_samples,
)
from helpers.models import SMALL, raw_forecast, small_model
from helpers.products import alternate
from pytorch_forecasting_mlstm import mLSTMTime


def test_hidden_size_num_layers_and_num_heads_set_sizes() -> None:
    model = mLSTMTime.from_dataset(
        configured("no covariates"),
        hidden_size=12,
        num_layers=3,
        num_heads=6,
        moving_averages=(9, 7),
    )
    assert len(model.network.memory.cells) == 3
    assert model.network.memory.cells[0].memory_shape(1) == (1, 6, 2, 2)
    assert model.network.residual_head.in_features == 12
    default = mLSTMTime.from_dataset(configured("no covariates"))
    assert default.size() != model.size()


@pytest.mark.parametrize(
    ("patch_length", "tokens"), [(1, 8 + 4), (3, 3 + 2), (4, 2 + 1), (20, 1 + 1)]
)
def test_patch_length_folds_steps_into_tokens(patch_length: int, tokens: int) -> None:
    dataset = configured("all covariates")
    model = mLSTMTime.from_dataset(dataset, patch_length=patch_length).eval()
    shapes = []
    model.network.memory.register_forward_pre_hook(
        lambda module, arguments: shapes.append(arguments[0].shape)
    )
    prediction = model(collate(pick_samples(dataset), torch.float32)[0]).prediction
    assert shapes == [(5, tokens, 64)]
    assert prediction.shape == (5, HORIZON, 1)


@pytest.mark.parametrize("widths", [((2, 1), (3, 1)), ((4, 1), (4, 2)), ((5, 3), (5, 4))])
def test_moving_averages_split_the_components(widths: tuple[tuple[int, int], ...]) -> None:
    """Trend and cycle have different weights, so that both widths have an effect."""
    dataset = configured("no covariates")
    forecasts = []
    for width in widths:
        torch.manual_seed(0)
        model = mLSTMTime.from_dataset(dataset, moving_averages=list(width))
        assert model.hparams.moving_averages == width
        nn.init.ones_(model.network.target_encoders[0].linear.trend.weight)
        nn.init.constant_(model.network.target_encoders[0].linear.cycle.weight, 2.0)
        forecasts.append(raw_forecast(model, dataset)[0])
    assert not torch.allclose(*forecasts, rtol=1e-3)


@alternate("name", CONFIGURATIONS)
def test_amplitudes_default_to_off_with_covariates(name: str) -> None:
    dataset = configured(name)
    reads = {*dataset.reals, *dataset.flat_categoricals} - {*dataset.target_names}
    model = small_model(name)
    assert model.hparams.amplitudes == (not reads)
    assert (model.network.amplitude_head is None) == bool(reads)


@pytest.mark.parametrize(
    "name",
    [
        "no covariates",
        "static categorical",
        "all covariates",
        "horizon beyond history",
        "two targets",
        "categorical target alone",
        "mixed targets and covariates",
    ],
)
def test_amplitudes_are_one_if_off(name: str) -> None:
    dataset, model = configured(name), small_model(name)
    reads = not model.hparams.amplitudes
    other = mLSTMTime.from_dataset(dataset, amplitudes=reads, **SMALL)
    x, _ = collate(pick_samples(dataset), torch.float32)
    without_amplitudes, with_amplitudes = (model, other) if reads else (other, model)
    interpretation = without_amplitudes.interpret_output(x)
    for amplitudes, forecast in zip(
        to_list(interpretation.amplitudes), to_list(interpretation.prediction), strict=True
    ):
        assert amplitudes.shape == (*forecast.shape[:2], 3)
        assert (amplitudes == 1).all()
    for amplitudes in to_list(with_amplitudes.interpret_output(x).amplitudes):
        assert (amplitudes != 1).any()


def test_dropout_acts_in_training_only() -> None:
    dataset = configured("all covariates")
    x, _ = collate(pick_samples(dataset), torch.float32)
    model = mLSTMTime.from_dataset(dataset, dropout=0.5)
    assert not torch.equal(model(x).prediction, model(x).prediction)
    model.eval()
    assert torch.equal(model(x).prediction, model(x).prediction)
    model = mLSTMTime.from_dataset(dataset, dropout=0.0)
    assert torch.equal(model(x).prediction, model.eval()(x).prediction)


def test_embedding_sizes_can_be_chosen() -> None:
    dataset = configured("all covariates")
    sizes = {"region": (3, 5)}
    model = mLSTMTime.from_dataset(dataset, embedding_sizes=sizes)
    assert model.network.categorical_embedding["region"].weight.shape == (3, 5)
    assert model.network.categorical_embedding["state"].weight.shape[0] == 2
    raw_forecast(model, dataset)


@pytest.mark.parametrize("name", ["type", "values", "training", "forward", "of_"])
def test_columns_of_any_name_are_embedded(name: str) -> None:
    """Including the names of attributes of torch's modules."""
    table = make_table().rename(columns={"state": name})
    dataset = make_dataset(table, time_varying_known_categoricals=[name])
    model = mLSTMTime.from_dataset(dataset)
    assert model.network.categorical_embedding[name].weight.shape[0] == 2
    raw_forecast(model, dataset)


def test_embedding_of_a_categorical_target_can_be_chosen() -> None:
    dataset = configured("categorical target")
    width = mLSTMTime.from_dataset(dataset).network.target_encoders[0].size + 3
    model = mLSTMTime.from_dataset(dataset, embedding_sizes={"label": (2, width)})
    assert model.network.target_encoders[0].embedding.weight.shape[1] == width
    raw_forecast(model, dataset)


def test_default_arguments_make_a_model() -> None:
    model = mLSTMTime()
    assert isinstance(model.loss, MAE)
    assert mLSTMTime().loss is not model.loss


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"hidden_size": 10},
            ValueError,
            "hidden_size must be a multiple of num_heads, got 10 and 4",
        ),
        ({"hidden_size": 0}, ValueError, "hidden_size must be at least 1, got 0"),
        ({"hidden_size": 64.0}, TypeError, "hidden_size must be an int, got 64.0"),
        ({"num_layers": 0}, ValueError, "mLSTMTime: num_layers must be at least 1, got 0"),
        ({"num_heads": 0}, ValueError, "num_heads must be at least 1, got 0"),
        ({"dropout": 1.0}, ValueError, "dropout must be in .0, 1., got 1.0"),
        ({"dropout": "much"}, TypeError, "dropout must be a number, got 'much'"),
        ({"patch_length": 0}, ValueError, "mLSTMTime: patch_length must be at least 1, got 0"),
        ({"patch_length": 2.5}, TypeError, "mLSTMTime: patch_length must be an int, got 2.5"),
        ({"memory_length": 0}, ValueError, "memory_length must be at least 1, got 0"),
        ({"memory_length": 2.5}, TypeError, "mLSTMTime: memory_length must be an int, got 2.5"),
        (
            {"memory_length": 9},
            ValueError,
            "memory_length must be at most max_encoder_length, which is 8, got 9; lower it",
        ),
        ({"amplitudes": "yes"}, TypeError, "amplitudes must be True or False, got 'yes'"),
        ({"moving_averages": (3, 2, 1)}, ValueError, "must be two numbers of steps"),
        ({"moving_averages": 25}, TypeError, "moving_averages must be two numbers of steps"),
        (
            {"moving_averages": (3, 0)},
            ValueError,
            r"moving_averages\[1\] must be at least 1, got 0",
        ),
        ({"moving_averages": (3.5, 1)}, TypeError, r"moving_averages\[0\] must be"),
        ({"moving_averages": (3, 5)}, ValueError, r"got \(3, 5\); swap them"),
        (
            {"instance_normalization": "yes"},
            TypeError,
            "mLSTMTime: instance_normalization must be True or False, got 'yes'",
        ),
        (
            {"max_encoder_length": 0},
            ValueError,
            "max_encoder_length must be at least the dataset's",
        ),
        ({"hiden_size": 32}, TypeError, "no argument 'hiden_size'; did you mean hidden_size"),
    ],
    ids=str,
)
def test_invalid_arguments_raise(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        mLSTMTime.from_dataset(configured("no covariates"), **arguments)


@pytest.mark.parametrize(
    ("part", "max_length", "steps"), [("encoder", 5, 8), ("prediction", 2, 4)], ids=str
)
def test_batch_that_is_too_long_raises(part: str, max_length: int, steps: int) -> None:
    model = mLSTMTime.from_dataset(make_dataset(**{f"max_{part}_length": max_length}))
    x, _ = collate(pick_samples(configured("no covariates")), torch.float32)
    with pytest.raises(
        ValueError,
        match=rf"^mLSTMTime: the model was made for a max_{part}_length of {max_length}, "
        rf"got a batch of {steps} steps; make the dataset with TimeSeriesDataSet\.from_dataset",
    ):
        model(x)


def test_from_dataset_rejects_arguments_that_contradict_the_dataset() -> None:
    dataset = configured("all covariates")
    for arguments, message in (
        ({"embedding_sizes": {"regoin": (3, 2)}}, "embedding_sizes must name .*got .'regoin'."),
        ({"output_size": 3}, "output_size follows from the dataset and the loss, here 1, got 3"),
        ({"target": "noise"}, "target follows from the dataset"),
        ({"max_encoder_length": 1}, "max_encoder_length must be at least the dataset's"),
    ):
        with pytest.raises(ValueError, match=f"mLSTMTime: {message}"):
            mLSTMTime.from_dataset(dataset, **arguments)
    longer = mLSTMTime.from_dataset(dataset, max_encoder_length=dataset.max_encoder_length + 5)
    raw_forecast(longer, dataset)


# Arguments that other models have


@pytest.mark.parametrize(
    ("argument", "guess"),
    [
        ("attention_head_size", "num_heads"),
        ("lr", "learning_rate"),
        ("hiden_size", "hidden_size"),
        ("drop_out", "dropout"),
        ("reduce_on_plateau_patiance", "reduce_on_plateau_patience"),
    ],
)
@pytest.mark.parametrize("make", ["from_dataset", "__init__"])
def test_unknown_argument_is_named_with_a_guess(argument: str, guess: str, make: str) -> None:
    message = f"^mLSTMTime: there is no argument '{argument}'; did you mean {guess}\\?$"
    with pytest.raises(TypeError, match=message):
        if make == "from_dataset":
            mLSTMTime.from_dataset(make_dataset(), **{argument: 2})
        else:
            mLSTMTime(**{argument: 2})


def test_unknown_argument_without_a_guess() -> None:
    with pytest.raises(TypeError, match="^mLSTMTime: there is no argument 'zzz'; see help()"):
        mLSTMTime(zzz=1)
