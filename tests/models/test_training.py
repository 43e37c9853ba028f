"""mLSTMTime in training: every parameter learns, what there is to learn is learned, and is kept."""

import pickle
from copy import deepcopy
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import Trainer, seed_everything
from matplotlib.figure import Figure
from pytorch_forecasting import GroupNormalizer, NaNLabelEncoder, TimeSeriesDataSet
from pytorch_forecasting.metrics import MAE, QuantileLoss
from pytorch_forecasting.utils import to_list
from torch import Tensor, nn

from helpers.datasets import (
    CONFIGURATIONS,
    HORIZON,
    QUIET,
    collate,
    configured,
    fit,
    make_dataset,
    make_table,
    pick_samples,
)
from pytorch_forecasting_mlstm import mLSTMTime

SMALL = {"hidden_size": 8, "num_heads": 2}


# Gradients


def gradients(model: mLSTMTime, dataset: TimeSeriesDataSet) -> dict[str, Tensor]:
    """Return the gradient of the loss by every parameter, in float64 and without dropout.

    No weight is at a special value, such as 0.
    """
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    x, y = collate(pick_samples(dataset, count=12))
    model.loss(model(x).prediction, y).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    dataset = configured(name)
    model = mLSTMTime.from_dataset(
        dataset,
        **SMALL,
        num_layers=2,
        # a history of one step is its own mean: normalized, nothing is left of it
        instance_normalization=dataset.max_encoder_length > 1,
    )
    for parameter, gradient in gradients(model, dataset).items():
        assert gradient is not None, parameter
        assert gradient.isfinite().all(), parameter
        if dataset.max_encoder_length == 1 and ("season" in parameter or "cycle" in parameter):
            continue  # a single step is all trend
        assert gradient.abs().max() > 1e-9, parameter


def test_untrained_model_learns_by_every_parameter() -> None:
    dataset = configured("all covariates")
    model = mLSTMTime.from_dataset(dataset, num_layers=3)
    x, y = collate(pick_samples(dataset), torch.float32)
    model.loss(model(x).prediction, y).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


# Learning


def make_sines(**special: Any) -> tuple[TimeSeriesDataSet, TimeSeriesDataSet]:
    """Make eight sines of period 24 around 10 ± 3, noise 0.05; the last 36 steps are apart."""
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
        table[table["t"] < 164], max_encoder_length=48, max_prediction_length=12, **special
    )
    return training, TimeSeriesDataSet.from_dataset(training, table, min_prediction_idx=164)


def mean_error(model: mLSTMTime, dataset: TimeSeriesDataSet) -> float:
    """Return the mean absolute error of the model's predictions."""
    got = model.predict(dataset, return_y=True, trainer_kwargs=dict(QUIET))
    return (got.output - got.y[0]).abs().mean().item()


def test_learns_noisy_sines() -> None:
    """To twice the noise; a constant forecast errs by 1.9, the last value by 2.6."""
    training, validation = make_sines()
    model = mLSTMTime.from_dataset(training, learning_rate=1e-2)
    assert mean_error(model, validation) > 1
    fit(model, training, steps=105, batch_size=64)
    assert mean_error(model, validation) < 0.08


def test_learns_the_season_of_a_label() -> None:
    """The season has no noise; a guess is right half of the time."""
    training, validation = make_sines(
        target="label", target_normalizer=NaNLabelEncoder(), time_varying_unknown_reals=[]
    )
    model = mLSTMTime.from_dataset(training, learning_rate=1e-2)
    fit(model, training, steps=60, batch_size=64)
    got = model.predict(validation, return_y=True, trainer_kwargs=dict(QUIET))
    accuracy = (got.output == got.y[0]).float().mean().item()
    assert accuracy > 0.95


def test_learns_what_a_known_covariate_decides() -> None:
    """The history says nothing of the next steps, and the best constant errs by 4."""
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
    model = mLSTMTime.from_dataset(training, learning_rate=1e-2)
    fit(model, training, steps=60, batch_size=32)
    assert mean_error(model, validation) < 0.8


def test_learns_what_a_static_variable_decides_where_there_is_no_history() -> None:
    """Series around 0 and 10, before their first value: the best constant errs by 5."""
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
    model = mLSTMTime.from_dataset(training, learning_rate=1e-2)
    fit(model, training, steps=60, batch_size=32)
    assert mean_error(model, validation) < 1


class Forgetful(nn.Module):
    """In the place of the memory: it adds nothing to any token."""

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, None]:
        return torch.zeros_like(tokens), None


def make_cues() -> tuple[TimeSeriesDataSet, TimeSeriesDataSet]:
    """Make noise; a word early in the history, 6 steps back or more, tells if 2 or -2 follow."""
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


def test_memory_carries_a_cue_that_the_linear_paths_cannot_see() -> None:
    training, validation = make_cues()
    errors = []
    for memory in (None, Forgetful()):
        seed_everything(0, verbose=False)
        model = mLSTMTime.from_dataset(training, learning_rate=1e-2)
        if memory is not None:
            model.network.memory = memory
        fit(model, training, steps=40, batch_size=60)
        errors.append(mean_error(model, validation))
    assert errors[0] < 0.8
    assert errors[1] > 1.5  # at chance: 2


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_trains_in_other_precisions(precision: str) -> None:
    dataset = configured("all lengths")
    model = mLSTMTime.from_dataset(dataset, loss=QuantileLoss(), **SMALL)
    before = deepcopy(model.state_dict())
    trainer = fit(model, dataset, precision=precision, gradient_clip_val=0.1)
    assert trainer.callback_metrics["train_loss"].isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all()
        assert not torch.equal(parameter, before[name].to(parameter)), name


# Keeping what was learned


@pytest.fixture
def trained(tmp_path: Path) -> tuple[mLSTMTime, TimeSeriesDataSet, Path]:
    """A model with nothing at its default, two steps trained, and its checkpoint."""
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
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    return model, dataset, tmp_path / "model.ckpt"


def raw_forecast(model: mLSTMTime, dataset: TimeSeriesDataSet) -> list[Tensor]:
    x, _ = collate(pick_samples(dataset), torch.float32)
    return [part.detach() for part in to_list(model.eval()(x).prediction)]


def test_checkpoint_gives_the_same_model(trained: tuple[mLSTMTime, Any, Path]) -> None:
    model, dataset, path = trained
    loaded = mLSTMTime.load_from_checkpoint(path)
    for name in ("patch_length", "moving_averages", "instance_normalization", "learning_rate"):
        assert loaded.hparams[name] == model.hparams[name]
    assert loaded.loss.quantiles == model.loss.quantiles
    expected = raw_forecast(model, dataset)[0]
    assert torch.equal(raw_forecast(loaded, dataset)[0], expected)
    other = mLSTMTime.from_dataset(dataset, **{**SMALL, "loss": QuantileLoss([0.2, 0.5, 0.7])})
    assert not torch.allclose(raw_forecast(other, dataset)[0], expected, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:If predicting, no randomization:UserWarning")  # of any dataset
def test_loaded_model_predicts_a_table(trained: tuple[mLSTMTime, Any, Path]) -> None:
    model, dataset, path = trained
    loaded = mLSTMTime.load_from_checkpoint(path)
    table = make_table(steps=30)  # longer than what was trained on
    expected = model.predict(
        TimeSeriesDataSet.from_dataset(dataset, table, predict=True), trainer_kwargs=dict(QUIET)
    )
    got = loaded.predict(table, return_index=True, trainer_kwargs=dict(QUIET))
    assert got.output.shape == (3, HORIZON)
    assert got.index["t"].tolist() == [26, 26, 26]
    assert torch.equal(got.output, expected)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint:UserWarning")
def test_training_goes_on_from_a_checkpoint(trained: tuple[mLSTMTime, Any, Path]) -> None:
    model, dataset, path = trained
    loaded = mLSTMTime.load_from_checkpoint(path)
    trainer = Trainer(max_steps=4, max_epochs=-1, enable_checkpointing=False, **QUIET)
    # the checkpoint holds the dataset's encoders, too; before Lightning 2.6 nothing had to be said
    new = "weights_only" in signature(Trainer.fit).parameters
    trainer.fit(
        loaded,
        dataset.to_dataloader(train=True, batch_size=16, num_workers=0),
        dataset.to_dataloader(train=False, batch_size=16, num_workers=0),
        ckpt_path=path,
        **({"weights_only": False} if new else {}),
    )
    assert trainer.global_step == 4
    assert not torch.equal(raw_forecast(loaded, dataset)[0], raw_forecast(model, dataset)[0])


@pytest.mark.parametrize(
    "copy",
    [deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deepcopy", "pickle"],
)
@pytest.mark.parametrize("name", ["all covariates", "two targets"])
def test_trained_model_can_be_copied(name: str, copy: Any) -> None:
    dataset = configured(name)
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    fit(model, dataset, steps=1, limit_train_batches=2)  # stops after a training step
    other = copy(model)
    for one, two in zip(raw_forecast(other, dataset), raw_forecast(model, dataset), strict=True):
        assert torch.equal(one, two)
    with torch.no_grad():
        model.network.residual_head.bias += 1
    for one, two in zip(raw_forecast(other, dataset), raw_forecast(model, dataset), strict=True):
        assert not torch.equal(one, two)
    fit(other.train(), dataset)


@pytest.mark.filterwarnings("ignore:.c. argument looks like:UserWarning")  # a horizon of one step
@pytest.mark.parametrize("name", ["all lengths", "mixed targets", "categorical target"])
def test_prediction_is_plotted(name: str) -> None:
    dataset = configured(name)
    model = mLSTMTime.from_dataset(dataset, **SMALL).eval()
    x, _ = collate(pick_samples(dataset), torch.float32)
    out = model(x)
    for row in range(len(x["encoder_lengths"])):
        figures = to_list(model.plot_prediction(x, out, idx=row))
        assert all(isinstance(figure, Figure) for figure in figures)
        assert len(figures) == len(dataset.target_names)


def test_every_target_has_a_picture_of_its_own() -> None:
    """The host draws all in one, and returns that as often as there are targets."""
    dataset = configured("two targets")
    model = mLSTMTime.from_dataset(dataset, loss=QuantileLoss([0.1, 0.5, 0.9]), **SMALL).eval()
    loss = model.loss
    x, _ = collate(pick_samples(dataset), torch.float32)
    out = model(x)
    first, second = model.plot_prediction(x, out, idx=1, add_loss_to_title=True)
    assert first is not second
    assert [figure.axes[0].get_ylabel() for figure in (first, second)] == ["y", "signed"]
    for number, figure in enumerate((first, second)):
        drawn = next(line for line in figure.axes[0].lines if line.get_label() == "predicted")
        expected = model.to_prediction(out)[number][1].detach()
        assert torch.allclose(torch.as_tensor(drawn.get_ydata()).float(), expected)
    assert model.loss is loss
    figure = Figure()
    axes = figure.subplots(2)
    assert model.plot_prediction(x, out, ax=list(axes)) == [figure, figure]
    with pytest.raises(ValueError, match=r"ax must be a list of axes.*\['y', 'signed'\], got 1"):
        model.plot_prediction(x, out, ax=axes[0])


def test_arguments_of_a_plot_may_go_by_their_place() -> None:
    """As of the host's method."""
    for name in ("no covariates", "two targets"):
        dataset = configured(name)
        model = mLSTMTime.from_dataset(dataset, **SMALL).eval()
        x, _ = collate(pick_samples(dataset), torch.float32)
        figure = Figure()
        axes = list(figure.subplots(len(dataset.target_names), squeeze=False).ravel())
        ax = axes if len(axes) > 1 else axes[0]
        figures = to_list(model.plot_prediction(x, model(x), 1, True, False, ax))
        assert figures == [figure] * len(axes)
        assert all("Loss" in each.get_title() for each in axes)


@pytest.mark.parametrize("name", ["two targets", "categorical target"])
def test_there_are_no_averages_of_classes_or_of_several_targets(name: str) -> None:
    dataset = configured(name)
    model = mLSTMTime.from_dataset(dataset, **SMALL).eval()
    x, _ = collate(pick_samples(dataset), torch.float32)
    with pytest.raises(ValueError, match="mLSTMTime: averages by variable"):
        model.calculate_prediction_actual_by_variable(x, model.to_prediction(model(x)))


def test_averages_by_variable_are_plotted() -> None:
    dataset = configured("all covariates")
    model = mLSTMTime.from_dataset(dataset, **SMALL).eval()
    x, _ = collate(pick_samples(dataset), torch.float32)
    averages = model.calculate_prediction_actual_by_variable(
        x, model.to_prediction(model(x)).detach()
    )
    figures = model.plot_prediction_actual_by_variable(averages)
    assert {"price", "region"} <= figures.keys()
    assert all(isinstance(figure, Figure) for figure in figures.values())


# Arguments: each does what it says


def test_sizes_are_those_asked_for() -> None:
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
    seen = []
    model.network.memory.register_forward_pre_hook(
        lambda module, arguments: seen.append(arguments[0].shape)
    )
    prediction = model(collate(pick_samples(dataset), torch.float32)[0]).prediction
    assert seen == [(5, tokens, 64)]
    assert prediction.shape == (5, HORIZON, 1)


@pytest.mark.parametrize("widths", [((2, 1), (3, 1)), ((4, 1), (4, 2)), ((5, 3), (5, 4))])
def test_moving_averages_split_the_bands(widths: tuple[tuple[int, int], ...]) -> None:
    """With weights on trend and cycle that differ, both widths show."""
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


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_amplitudes_are_off_with_covariates(name: str) -> None:
    dataset = configured(name)
    reads = {*dataset.reals, *dataset.flat_categoricals} - {*dataset.target_names}
    model = mLSTMTime.from_dataset(dataset)
    assert model.hparams.amplitudes == (not reads)
    assert (model.network.amplitude_head is None) == bool(reads)
    off = mLSTMTime.from_dataset(dataset, amplitudes=False)
    x, _ = collate(pick_samples(dataset), torch.float32)
    found = off.interpret_output(x)
    for amplitudes, forecast in zip(
        to_list(found.amplitudes), to_list(found.prediction), strict=True
    ):
        assert amplitudes.shape == (*forecast.shape[:2], 3)
        assert (amplitudes == 1).all()
    on = mLSTMTime.from_dataset(dataset, amplitudes=True)
    for amplitudes in to_list(on.interpret_output(x).amplitudes):
        assert (amplitudes != 1).any()


def test_dropout_acts_in_training_alone() -> None:
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
    """Names that modules of torch have for something else."""
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
        ({"hiden_size": 32}, TypeError, "unexpected keyword argument 'hiden_size'"),
    ],
    ids=str,
)
def test_wrong_arguments_are_explained(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        mLSTMTime.from_dataset(configured("no covariates"), **arguments)


@pytest.mark.parametrize(
    ("part", "made_for", "steps"), [("encoder", 5, 8), ("prediction", 2, 4)], ids=str
)
def test_too_long_batch_is_explained(part: str, made_for: int, steps: int) -> None:
    model = mLSTMTime.from_dataset(make_dataset(**{f"max_{part}_length": made_for}))
    x, _ = collate(pick_samples(configured("no covariates")), torch.float32)
    with pytest.raises(
        ValueError,
        match=rf"^mLSTMTime: the model was made for a max_{part}_length of {made_for}, got a batch "
        rf"of {steps} steps; make the dataset with TimeSeriesDataSet\.from_dataset",
    ):
        model(x)


def test_what_follows_from_the_dataset_cannot_be_contradicted() -> None:
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
