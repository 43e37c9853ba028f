"""Losses and metrics that do not suit a dataset are rejected at once, with a reason."""

from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from pytorch_forecasting import EncoderNormalizer, GroupNormalizer
from pytorch_forecasting.metrics import (
    MAE,
    MASE,
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
)
from pytorch_forecasting.metrics.base_metrics import AggregationMetric
from torch import nn

from helpers.datasets import (
    CONFIGURATIONS,
    configured,
    ignore_flat_histories,
    make_dataset,
    make_table,
    with_target,
)
from helpers.models import SMALL
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet
from pytorch_forecasting_mlstm.models.base.checks.loss import dry_run_loss

_Y = with_target("y", GroupNormalizer(groups=["series"]))


_LABEL: dict[str, Any] = {**with_target("label"), "time_varying_unknown_reals": []}


_MIXED = CONFIGURATIONS["mixed targets"]


@pytest.mark.parametrize(
    "metric",
    [
        QuantileLoss(),
        CrossEntropy(),
        NormalDistributionLoss(),
        PoissonLoss(),
        SMAPE() + QuantileLoss(),
    ],
    ids=lambda metric: type(metric).__name__,
)
def test_clone_logging_metrics_rejects_metrics_of_more_than_a_point(metric: Any) -> None:
    dataset = configured("no covariates")
    with pytest.raises(ValueError, match="^mLSTMTime: logging_metrics must be metrics of a point"):
        mLSTMTime.from_dataset(dataset, logging_metrics=[metric], **SMALL)


@pytest.mark.parametrize(
    ("name", "metric", "message"),
    [
        ("weights", MASE(), "MASE cannot weight steps"),
        ("weights", torchmetrics.MeanSquaredError(), "MeanSquaredError cannot weight steps"),
        ("variable decoders", AggregationMetric(MAE()), "cannot leave out the padding"),
    ],
)
def test_check_logging_metrics_rejects_metrics_that_fail_on_the_dataset(
    name: str, metric: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^mLSTMTime: .*{message}"):
        mLSTMTime.from_dataset(configured(name), logging_metrics=[metric], **SMALL)


@pytest.mark.parametrize("metrics", [MAE(), "mae", 3, [MAE], ["mae"]], ids=str)
def test_clone_logging_metrics_rejects_what_is_not_a_list_of_metrics(metrics: Any) -> None:
    with pytest.raises(TypeError, match="^mLSTMTime: logging_metrics must be"):
        mLSTMTime.from_dataset(configured("no covariates"), logging_metrics=metrics, **SMALL)


def test_model_is_made_from_a_dataset_on_a_device() -> None:
    """A new model is on the CPU, and so are the samples that its loss is tried on."""
    parameters = make_dataset().get_parameters()
    data = BatchedTimeSeriesDataSet.from_parameters(parameters, make_table()).to("meta")
    model = mLSTMTime.from_dataset(data, **SMALL)
    assert {x.device.type for x in model.parameters()} == {"cpu"}
    assert data.device.type == "meta"


def test_dry_run_loss_changes_no_random_numbers() -> None:
    dataset = configured("known real")
    draws = []
    for loss in (MAE(), ImplicitQuantileNetworkDistributionLoss()):
        model = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL)
        state = torch.get_rng_state()
        dry_run_loss(model, dataset)
        assert model.training
        assert torch.equal(torch.get_rng_state(), state)
        draws.append(model.loss.lengths)
    assert not any(draws)  # the loss of the model has accumulated nothing


@pytest.mark.parametrize(
    ("dataset", "loss", "message"),
    [
        (
            "no covariates",
            MultiLoss([MAE()]),
            r"mLSTMTime: the dataset has the single target 'y', but loss is a MultiLoss of 1; "
            r"pass a single loss, or give the dataset a list of targets\.",
        ),
        (
            "two targets",
            MultiLoss([MAE(), MAE(), MAE()]),
            r"mLSTMTime: loss must have one part for each of the targets \['y', 'signed'\], "
            r"got 3\.",
        ),
    ],
)
def test_resolve_loss_rejects_another_number_of_losses(
    dataset: str, loss: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        mLSTMTime.from_dataset(configured(dataset), loss=loss)


@pytest.mark.parametrize(
    ("settings", "loss", "reason"),
    [
        (_Y, CrossEntropy(), "categorical"),
        (_LABEL, MAE(), "categorical"),
        (_LABEL, QuantileLoss(), "categorical"),
        (_LABEL, NormalDistributionLoss(), "categorical"),
        (_MIXED, MAE(), "categorical"),
        (_MIXED, [CrossEntropy(), MAE()], "categorical"),
        (_Y, NegativeBinomialDistributionLoss(), "center"),
        (_Y, LogNormalDistributionLoss(), "log"),
        (
            with_target("volume", EncoderNormalizer(transformation="log1p")),
            LogNormalDistributionLoss(),
            "transformation 'log', got 'log1p'",
        ),
        (
            with_target("volume", GroupNormalizer(transformation="sqrt", center=False)),
            NegativeBinomialDistributionLoss(),
            "transformation",
        ),
        (_Y, BetaDistributionLoss(), "logit"),
        (_Y, QuantileLoss([0.7, 0.9]), r"0\.5"),
        (_Y, QuantileLoss([0.1, 1.5]), "between 0 and 1"),
        (_Y, NormalDistributionLoss(quantiles=[0.2, 2]), "between 0 and 1"),
        (_Y, [], "a part for each target"),
        (_Y, torchmetrics.R2Score(), "cannot be a loss"),
        (_Y, torchmetrics.PearsonCorrCoef(), "cannot be a loss"),
        (_Y, PoissonLoss() + MAE(), "different ways"),
        (_Y, QuantileLoss([0.1, 0.5]) + MAE(), "different ways"),
        (_Y, MASE() + MAE(), "MASE as a part"),
        (_Y, AggregationMetric(QuantileLoss()), "mean of points"),
        (_Y, MAE(reduction="none"), "a single number"),
        (_Y, torchmetrics.HammingDistance(task="binary"), "cannot be trained"),
        (_Y, torchmetrics.Accuracy(task="binary"), "cannot be a loss"),
        (with_target("signed"), PoissonLoss(), r"values of target 'signed'"),
        (
            with_target("volume", GroupNormalizer(center=False)),
            NegativeBinomialDistributionLoss(),
            "values",
        ),
        (
            with_target("signed", GroupNormalizer(transformation="relu")),
            NormalDistributionLoss(),
            "values of target",
        ),
        (
            with_target("y", GroupNormalizer(transformation={"forward": torch.asinh})),
            NormalDistributionLoss(),
            "inverse_torch",
        ),
        ({**_Y, "weight": "weight"}, MASE(), "weight steps"),
        ({**_Y, "weight": "weight"}, torchmetrics.MeanSquaredError(), "weight steps"),
        ({**_Y, "weight": "weight"}, AggregationMetric(MAE()), "weight steps"),
        ({**_Y, "min_prediction_length": 1}, AggregationMetric(MAE()), "padding"),
        ({**_Y, "min_prediction_length": 1}, MultivariateNormalDistributionLoss(), "padding"),
        (
            {
                **with_target("y", EncoderNormalizer(transformation="softplus")),
                "min_prediction_length": 1,
            },
            NormalDistributionLoss(),
            "padding",
        ),
        (
            {**_Y, "min_encoder_length": 0, "max_encoder_length": 1, "max_prediction_length": 1},
            MASE(),
            "min_encoder_length",
        ),
    ],
)
def test_check_losses_rejects_a_loss_that_does_not_suit_its_target(
    settings: dict[str, Any], loss: Any, reason: str
) -> None:
    with pytest.raises(ValueError, match=rf"^mLSTMTime: .*{reason}"):
        mLSTMTime.from_dataset(make_dataset(**settings), loss=loss)


@pytest.mark.parametrize("loss", ["mae", MAE, nn.Linear(1, 1)], ids=["name", "class", "module"])
def test_clone_loss_rejects_what_is_not_a_metric(loss: Any) -> None:
    with pytest.raises(TypeError, match=r"^mLSTMTime: loss must be"):
        mLSTMTime.from_dataset(configured("no covariates"), loss=loss)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nn.PoissonNLLLoss(), "TypeError.*got PoissonNLLLoss; .* PoissonLoss() for example"),
        (nn.CrossEntropyLoss(), "TypeError.*got CrossEntropyLoss; .* CrossEntropy() for example"),
        (nn.KLDivLoss(), "TypeError.*nn.HuberLoss, .*got KLDivLoss; .* MAE() for example"),
        (nn.GaussianNLLLoss(), "TypeError.*got GaussianNLLLoss; .* NormalDistributionLoss() for"),
        (nn.TripletMarginLoss(), "TypeError.*got TripletMarginLoss; .* MAE() for example"),
        (nn.CosineEmbeddingLoss(), "TypeError.*got CosineEmbeddingLoss; .* MAE() for example"),
        (nn.MSELoss(reduction="sum"), "ValueError.*reduction='mean', .*got 'sum'; leave it out"),
        (nn.L1Loss(reduction="none"), "ValueError.*reduction='mean', .*got 'none'; leave it out"),
    ],
)
def test_other_losses_of_torch_are_rejected(loss: nn.Module, message: str) -> None:
    kind, _, text = message.partition(".*")
    with pytest.raises((TypeError, ValueError), match=text.replace("()", r"\(\)")) as raised:
        mLSTMTime.from_dataset(configured("no covariates"), loss=loss)
    assert type(raised.value).__name__ == kind
    assert str(raised.value).startswith("mLSTMTime: ")


@pytest.mark.parametrize(
    ("loss", "transformation", "value", "alternative"),
    [
        (LogNormalDistributionLoss(), "log", 0.0, "TweedieLoss"),
        (BetaDistributionLoss(), "logit", 0.0, "QuantileLoss"),
        (BetaDistributionLoss(), "logit", 1.0, "QuantileLoss"),
        (NegativeBinomialDistributionLoss(), None, -1.0, "QuantileLoss"),
        (NegativeBinomialDistributionLoss(), None, 1.5, "QuantileLoss"),
        (PoissonLoss(), None, -0.1, "QuantileLoss"),
    ],
)
def test_values_without_a_probability_are_counted(
    loss: Any, transformation: str | None, value: float, alternative: str
) -> None:
    """Their forecasts would be infinite, or far from the data."""
    usual = 0.5 if transformation == "logit" else 2.0
    table = make_table()
    table["share"] = np.where(table["t"] == 9, value, usual)
    center = not isinstance(loss, NegativeBinomialDistributionLoss)
    normalizer = GroupNormalizer(transformation=transformation, center=center)
    dataset = make_dataset(**{**with_target("share", normalizer), "table": table})
    message = (
        f"^mLSTMTime: .* does not support the values of target 'share', such as {value:g} "
        rf"\(3 of {len(table)} rows\); pass {alternative}"
    )
    with pytest.raises(ValueError, match=message):
        mLSTMTime.from_dataset(dataset, loss=loss)


@ignore_flat_histories
@pytest.mark.parametrize(
    "settings",
    [
        {"loss": MASE()},
        {"logging_metrics": [MASE()]},
        {"loss": MAE(), "logging_metrics": [MAE(), MASE()]},
    ],
    ids=["loss", "metric", "one of several metrics"],
)
def test_mase_of_windows_that_do_not_change_is_refused(settings: dict[str, Any]) -> None:
    """Windows of 12 steps; the first twenty steps of one of three series are constant."""
    table = make_table()
    table.loc[(table["series"] == "s1") & (table["t"] < 20), "y"] = 7.0
    dataset = make_dataset(table)
    with pytest.raises(ValueError, match=r"^mLSTMTime: MASE\(\) .* got 9 of 45 windows .* 'y'"):
        mLSTMTime.from_dataset(dataset, **settings)


@ignore_flat_histories
def test_mase_of_windows_that_change_in_the_horizon_is_accepted() -> None:
    table = make_table()
    table["y"] = (table["t"] >= 20) * 1.0
    dataset = make_dataset(table[table["t"] >= 12].reset_index(drop=True))
    mLSTMTime.from_dataset(dataset, loss=MASE())
