"""Every loss of pytorch-forecasting trains, predicts in all modes, and keeps its own state."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
import torchmetrics
from lightning import Trainer
from matplotlib.figure import Figure
from pytorch_forecasting import EncoderNormalizer, GroupNormalizer, TimeSeriesDataSet
from pytorch_forecasting.metrics import (
    MAE,
    MAPE,
    MASE,
    RMSE,
    SMAPE,
    BetaDistributionLoss,
    CrossEntropy,
    ImplicitQuantileNetworkDistributionLoss,
    LogNormalDistributionLoss,
    MultiLoss,
    MultivariateNormalDistributionLoss,
    NegativeBinomialDistributionLoss,
    NormalDistributionLoss,
    PoissonLoss,
    QuantileLoss,
    TweedieLoss,
)
from pytorch_forecasting.metrics.base_metrics import AggregationMetric
from pytorch_forecasting.utils import to_list
from torch import nn

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
    shared_dataset,
    with_target,
)
from helpers.models import SMALL
from helpers.products import alternate, spread
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet

QUANTILES = [0.1, 0.5, 0.8]


_Y = with_target("y", GroupNormalizer(groups=["series"]))


_COUNT = with_target("count", GroupNormalizer(center=False))


_VOLUME = with_target("volume", GroupNormalizer(transformation="log"))


_SHARE = with_target("share", GroupNormalizer(transformation="logit"))


_LABEL: dict[str, Any] = {**with_target("label"), "time_varying_unknown_reals": []}


_TWO = CONFIGURATIONS["two targets"]


_MIXED = CONFIGURATIONS["mixed targets"]


# a function that makes the loss, arguments of the dataset, output sizes of quantiles and raw
Case = tuple[Callable[[], Any], dict[str, Any], list[int], list[int]]


CASES: dict[str, Case] = {
    "MAE": (MAE, _Y, [1], [1]),
    "SMAPE": (SMAPE, _Y, [1], [1]),
    "MAPE": (MAPE, _Y, [1], [1]),
    "RMSE": (RMSE, _Y, [1], [1]),
    "MASE": (MASE, _Y, [1], [1]),
    "Poisson": (PoissonLoss, _COUNT, [1], [1]),
    "Poisson, log1p": (
        PoissonLoss,
        with_target("count", EncoderNormalizer(transformation={"forward": torch.log1p})),
        [1],
        [1],
    ),
    "Tweedie": (TweedieLoss, with_target("count"), [1], [1]),
    "quantiles": (lambda: QuantileLoss(QUANTILES), _Y, [3], [3]),
    "quantiles, no median": (lambda: QuantileLoss([0.9, 0.2]), _Y, [2], [2]),
    "aggregation": (lambda: AggregationMetric(MAE()), _Y, [1], [1]),
    "Huber of torch": (lambda: nn.HuberLoss(delta=0.5), _Y, [1], [1]),
    "torch and pytorch-forecasting": (lambda: [nn.MSELoss(), MAE()], _TWO, [1, 1], [1, 1]),
    "torchmetrics": (torchmetrics.MeanSquaredError, _Y, [1], [1]),
    "composite of torchmetrics": (
        lambda: SMAPE() + torchmetrics.MeanSquaredError(),
        _Y,
        [1],
        [1],
    ),
    "composite": (lambda: SMAPE() + MAE(), _Y, [1], [1]),
    "weighted composite": (lambda: SMAPE() * 0.5 + RMSE() * 2, _Y, [1], [1]),
    "normal": (NormalDistributionLoss, _Y, [7], [4]),
    "normal, custom quantiles": (lambda: NormalDistributionLoss(quantiles=QUANTILES), _Y, [3], [4]),
    "normal, softplus": (
        NormalDistributionLoss,
        with_target("y", EncoderNormalizer(transformation="softplus")),
        [7],
        [4],
    ),
    "multivariate normal": (lambda: MultivariateNormalDistributionLoss(rank=3), _Y, [7], [7]),
    "negative binomial": (NegativeBinomialDistributionLoss, _COUNT, [7], [2]),
    "log-normal": (LogNormalDistributionLoss, _VOLUME, [7], [2]),
    "beta": (BetaDistributionLoss, _SHARE, [7], [2]),
    "implicit quantiles": (ImplicitQuantileNetworkDistributionLoss, _Y, [7], [18]),
    "implicit quantiles of two": (
        lambda: [ImplicitQuantileNetworkDistributionLoss(), MAE()],
        _TWO,
        [7, 1],
        [18, 1],
    ),
    "classes": (CrossEntropy, _LABEL, [3], [3]),
    "two points": (lambda: MultiLoss([MAE(), SMAPE()]), _TWO, [1, 1], [1, 1]),
    "list": (lambda: [MAE(), torchmetrics.MeanSquaredError()], _TWO, [1, 1], [1, 1]),
    "one for two": (lambda: QuantileLoss(QUANTILES), _TWO, [3, 3], [3, 3]),
    "quantiles and distribution": (
        lambda: MultiLoss([QuantileLoss(QUANTILES), NormalDistributionLoss()]),
        _TWO,
        [3, 7],
        [3, 4],
    ),
    "MASE and composite": (lambda: MultiLoss([MASE(), SMAPE() + MAE()]), _TWO, [1, 1], [1, 1]),
    "weighted": (lambda: MultiLoss([MAE(), RMSE()], weights=[1.0, 3.0]), _TWO, [1, 1], [1, 1]),
    "quantiles and classes": (
        lambda: MultiLoss([QuantileLoss(QUANTILES), CrossEntropy()]),
        _MIXED,
        [3, 3],
        [3, 3],
    ),
}


# Losses without support for horizons of different lengths. pytorch-forecasting pads the truth with
# 0, which is outside the support of positive distributions, and which losses that average over
# samples or steps treat as data.
NO_PADDING = ["normal, softplus", "aggregation", "multivariate normal"]


def make_case(name: str, **changes: Any) -> tuple[Any, TimeSeriesDataSet]:
    loss, settings, *_ = CASES[name]
    return loss(), shared_dataset(**{"time_varying_known_reals": ["price"], **settings, **changes})


def every_fifth(dataset: TimeSeriesDataSet) -> TimeSeriesDataSet:
    """Return a dataset of every fifth window."""
    few = deepcopy(dataset)
    few.index = few.index.iloc[::5].reset_index(drop=True)
    return few


@alternate("name", CASES, first=1)
@ignore_flat_histories
def test_loss_trains_and_predicts_in_all_modes(name: str, tmp_path: Path) -> None:
    _, _, quantile_sizes, raw_sizes = CASES[name]
    loss, dataset = make_case(name, min_encoder_length=3)
    model = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL)
    before = deepcopy(model.state_dict())
    trainer = fit(model, dataset)
    assert trainer.callback_metrics["train_loss"].isfinite()
    assert trainer.callback_metrics["val_loss"].isfinite()
    after = model.state_dict()
    assert any(not torch.equal(after[key], before[key]) for key in before)
    assert all(value.isfinite().all() for value in after.values())

    dataset = every_fifth(dataset)
    n = len(dataset)
    steps = {"prediction": [()], "quantiles": quantile_sizes, "raw": raw_sizes}
    for mode, sizes in steps.items():
        result = model.predict(
            dataset,
            mode=mode,
            return_x=True,
            return_y=True,
            return_index=True,
            return_decoder_lengths=True,
            trainer_kwargs=dict(QUIET),
        )
        parts = to_list(result.output.prediction if mode == "raw" else result.output)
        expected = [size if isinstance(size, tuple) else (size,) for size in sizes]
        if mode == "prediction":
            expected *= len(dataset.target_names)
        assert [part.shape for part in parts] == [(n, HORIZON, *size) for size in expected]
        assert all(part.isfinite().all() for part in parts)
        assert len(result.index) == len(result.x["decoder_lengths"]) == n
        assert (result.decoder_lengths == HORIZON).all()
        assert to_list(result.y[0])[0].shape == (n, HORIZON)
    assert isinstance(result.output.prediction, list) is isinstance(dataset.target, list)

    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = mLSTMTime.load_from_checkpoint(tmp_path / "model.ckpt")
    reloaded = loaded.predict(dataset, mode="raw", trainer_kwargs=dict(QUIET)).prediction
    for actual, before_saving in zip(to_list(reloaded), parts, strict=True):
        assert torch.equal(actual, before_saving)


@alternate("name", [name for name in CASES if name not in NO_PADDING], every=4)
def test_loss_works_on_horizons_of_different_lengths(name: str) -> None:
    loss, dataset = make_case(name, min_prediction_length=1)
    model = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL)
    trainer = fit(model, dataset)
    assert trainer.callback_metrics["train_loss"].isfinite()
    few = every_fifth(dataset)
    result = model.predict(few, return_decoder_lengths=True, trainer_kwargs=dict(QUIET))
    padding = torch.arange(HORIZON) >= result.decoder_lengths[:, None]
    assert padding.any()
    for part in to_list(result.output):
        if part.is_floating_point():
            assert torch.equal(part.isnan(), padding)


@alternate(
    "name",
    [
        "MAE",
        "quantiles",
        "aggregation",
        "torchmetrics",
        "composite",
        "normal",
        "implicit quantiles",
        "classes",
        "list",
        "one for two",
        "MASE and composite",
        "quantiles and classes",
    ],
)
def test_loss_object_can_be_used_for_a_second_model(name: str) -> None:
    loss, dataset = make_case(name)
    first = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL)
    fit(first, dataset, steps=1, limit_train_batches=2)  # stops after a training step
    second = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL)
    third = mLSTMTime.from_dataset(dataset, loss=first.loss, **SMALL)
    losses = [id(part) for model in (first, second, third) for part in model.loss.modules()]
    assert len(set(losses)) == len(losses)
    assert not {id(part) for part in to_list(loss)} & set(losses)
    fit(third, dataset, steps=1)


@alternate("name", CASES)
def test_plot_prediction_of_every_loss_is_a_figure(name: str) -> None:
    loss, dataset = make_case(name)
    model = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL).eval()
    x, _ = collate(pick_samples(dataset), torch.float32)
    figures = to_list(model.plot_prediction(x, model(x), idx=1, add_loss_to_title=True))
    assert len(figures) == len(dataset.target_names)
    assert all(isinstance(figure, Figure) for figure in figures)
    plt.close("all")


@pytest.mark.parametrize("name", ["MAE", "quantiles", "normal", "negative binomial"])
def test_weights_multiply_the_loss(name: str) -> None:
    loss, dataset = make_case(name, weight="weight")
    model = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL)
    x, (y, weight) = collate(pick_samples(dataset), torch.float32)
    prediction = model(x).prediction.detach()
    unweighted = model.loss(prediction, (y, None))
    assert torch.isclose(model.loss(prediction, (y, 3 * torch.ones_like(weight))), 3 * unweighted)
    assert not torch.isclose(model.loss(prediction, (y, weight)), unweighted)
    fit(model, dataset)


def test_distributions_of_several_targets_have_separate_states() -> None:
    dataset = make_dataset(
        target=["y", "signed"],
        time_varying_unknown_reals=["y", "signed"],
        target_normalizer=[
            GroupNormalizer(transformation="softplus"),
            GroupNormalizer(groups=["series"]),
        ],
    )
    model = mLSTMTime.from_dataset(dataset, loss=NormalDistributionLoss(), **SMALL)
    model(collate(pick_samples(dataset), torch.float32)[0])
    assert [part._transformation for part in model.loss.metrics] == ["softplus", None]


def test_logging_metrics_are_logged_for_every_target() -> None:
    dataset = configured("two targets")
    metrics = nn.ModuleList([SMAPE(), MASE(), torchmetrics.MeanAbsoluteError()])
    model = mLSTMTime.from_dataset(dataset, loss=QuantileLoss(), logging_metrics=metrics, **SMALL)
    logged = fit(model, dataset).callback_metrics
    for name in ("y", "signed"):
        for metric in ("SMAPE", "MASE"):
            assert logged[f"{name} val_{metric}"].isfinite()


@pytest.mark.parametrize("name", ["variable decoders", "two targets with weights and lags"])
def test_logging_metrics_mask_padding(name: str) -> None:
    """pytorch-forecasting would count padding as forecasts of 0."""
    dataset = configured(name)
    metrics = [MAE(), SMAPE() + MAE()]
    model = mLSTMTime.from_dataset(dataset, logging_metrics=metrics, **SMALL)
    loader = dataset.to_dataloader(train=False, batch_size=1000)
    trainer = Trainer(**QUIET)
    trainer.validate(model, loader, verbose=False)
    x, (y, weight) = next(iter(loader))
    valid = torch.arange(HORIZON) < x["decoder_lengths"][:, None]
    assert not valid.all()
    with torch.no_grad():
        points = to_list(model.eval().to_prediction(model(x)))
    for tag, point, truth in zip(dataset.target_names, points, to_list(y), strict=True):
        tag = f"{tag} " if len(points) > 1 else ""
        size = (point - truth).abs()
        ratio = 2 * size / (point.abs() + truth.abs() + 1e-8)
        factor = torch.ones_like(size) if weight is None else weight
        mae, smape = ((part * factor)[valid].mean() for part in (size, ratio))
        logged = trainer.callback_metrics
        assert logged[f"{tag}val_MAE"].item() == pytest.approx(mae.item(), rel=1e-4)
        composite = logged[f"{tag}val_{model.logging_metrics[1].name}"]
        assert composite.item() == pytest.approx((mae + smape).item(), rel=1e-4)
    assert model.logging_metrics[0] is not metrics[0]


@spread(
    "transformation, loss",
    [None, "log1p", "count", "softplus", "relu", "sqrt"],
    {"MAE": MAE(), "q": QuantileLoss(), "sum": SMAPE() + MAE()},
)
def test_transform_output_inverts_the_transformation(transformation: str | None, loss: Any) -> None:
    """In pytorch-forecasting, log1p and count turn a constant of 5 into a forecast of 6."""
    table = make_table()
    table["y"] = 0.25 + 0.01 * (table["t"] % 2)
    normalizer = EncoderNormalizer(transformation=transformation)
    dataset = make_dataset(table, target_normalizer=normalizer)
    model = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL)
    with torch.no_grad():
        model.network.residual_head.weight.zero_()  # the linear maps continue the history
        model.network.residual_head.bias.zero_()
    x, _ = collate(pick_samples(dataset), torch.float32)
    forecast = model.to_prediction(model(x))
    torch.testing.assert_close(forecast, torch.full_like(forecast, 0.255), rtol=0, atol=0.02)


def test_one_distribution_used_twice_has_two_states() -> None:
    shared = NormalDistributionLoss()
    dataset = make_dataset(
        target=["y", "signed"],
        time_varying_unknown_reals=["y", "signed"],
        target_normalizer=[GroupNormalizer(transformation="softplus"), GroupNormalizer()],
    )
    model = mLSTMTime.from_dataset(dataset, loss=MultiLoss([shared, shared]), **SMALL)
    first, second = model.loss.metrics
    assert first is not second
    assert (first._transformation, second._transformation) == ("softplus", None)


def test_networks_within_a_multi_loss_are_trained_and_saved() -> None:
    loss, dataset = make_case("implicit quantiles of two")
    model = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL)
    networks = {name for name, _ in model.named_parameters() if "quantile_network" in name}
    assert networks and networks <= set(model.state_dict())
    before = {name: model.state_dict()[name].clone() for name in networks}
    fit(model, dataset, steps=2)
    changed = [name for name in networks if not torch.equal(model.state_dict()[name], before[name])]
    assert set(changed) == networks


def test_output_of_another_model_can_be_read() -> None:
    """pytorch-forecasting sets the transformation of a distribution at its first forecast."""
    loss, dataset = make_case("normal, softplus")
    model = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL).eval()
    x, _ = collate(pick_samples(dataset), torch.float32)
    raw = model(x)
    hyperparameters = {**model.hparams, "output_transformer": model.output_transformer}
    second_model = mLSTMTime(**{**hyperparameters, "loss": loss})
    torch.manual_seed(1)
    quantiles = second_model.to_quantiles(raw)
    torch.manual_seed(1)
    assert torch.equal(quantiles, model.to_quantiles(raw))


@pytest.mark.parametrize("loss", [PoissonLoss(), TweedieLoss(), NegativeBinomialDistributionLoss()])
@pytest.mark.parametrize("size", [0.01, 1e4])
def test_untrained_counts_are_in_the_scale_of_the_data(loss: Any, size: float) -> None:
    table = make_table()
    table["count"] = table["count"].mul(size).round() if size > 1 else table["count"] % 2
    dataset = make_dataset(table, **_COUNT)
    model = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL).eval()
    x, (y, _) = next(iter(dataset.to_dataloader(train=False, batch_size=64)))
    mean = model.to_prediction(model(x)).mean()
    assert 0.2 * y.mean() < mean < 5 * y.mean()


def test_linear_maps_learn_a_season_of_classes() -> None:
    """Every class has its season."""
    t = torch.arange(60)
    table = pd.DataFrame(
        {"t": t, "series": "s", "label": ["up" if n // 3 % 2 else "down" for n in t]}
    )
    dataset = make_dataset(table, **_LABEL)
    model = mLSTMTime.from_dataset(dataset, learning_rate=0.03, **SMALL)
    fit(model, BatchedTimeSeriesDataSet.wrap(dataset), steps=60, limit_train_batches=3)
    x, (y, _) = next(iter(dataset.to_dataloader(train=False, batch_size=64)))
    assert torch.equal(model.eval().to_prediction(model(x)), y)


def test_monotone_constraints_take_effect() -> None:
    """A forecast that decreases with the price decreases less if a constraint forbids it."""
    table = make_table()
    table["y"] = 10 - 3 * table["price"]
    dataset = make_dataset(table, time_varying_known_reals=["price"])
    slopes = []
    for constraints in ({}, {"price": 1}):
        torch.manual_seed(0)
        model = mLSTMTime.from_dataset(
            dataset, monotone_constraints=constraints, learning_rate=0.05, dropout=0.0, **SMALL
        )
        with torch.backends.cudnn.flags(enabled=False):
            fit(model, BatchedTimeSeriesDataSet.wrap(dataset), steps=24, limit_train_batches=3)
        x, _ = next(iter(dataset.to_dataloader(train=False, batch_size=64)))
        model.eval()
        column = dataset.reals.index("price")
        higher = {**x, "decoder_cont": x["decoder_cont"].clone()}
        higher["decoder_cont"][..., column] += 0.5
        slopes.append((model(higher).prediction - model(x).prediction).mean())
    assert slopes[0] < 0
    assert slopes[1] > slopes[0] / 2
