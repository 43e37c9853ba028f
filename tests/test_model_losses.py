"""Every loss of the host: it trains, predicts in all modes, and never shares its state."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
import torchmetrics
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

from datasets import (
    CONFIGURATIONS,
    HORIZON,
    QUIET,
    collate,
    configured,
    fit,
    make_dataset,
    pick_samples,
)
from pytorch_forecasting_mlstm import mLSTMTime

QUANTILES = [0.1, 0.5, 0.8]
SMALL = {"hidden_size": 8, "num_heads": 2}


def target(name: str, normalizer: Any = "auto") -> dict[str, Any]:
    return {
        "target": name,
        "time_varying_unknown_reals": [name],
        "target_normalizer": normalizer,
    }


_Y = target("y", GroupNormalizer(groups=["series"]))
_COUNT = target("count", GroupNormalizer(center=False))
_VOLUME = target("volume", GroupNormalizer(transformation="log"))
_SHARE = target("share", GroupNormalizer(transformation="logit"))
_LABEL: dict[str, Any] = {**target("label"), "time_varying_unknown_reals": []}
_TWO = CONFIGURATIONS["two targets"]
_MIXED = CONFIGURATIONS["mixed targets"]

# what makes the loss, what is special in the dataset, sizes of prediction, quantiles and raw
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
        target("count", EncoderNormalizer(transformation={"forward": torch.log1p})),
        [1],
        [1],
    ),
    "Tweedie": (TweedieLoss, target("count"), [1], [1]),
    "quantiles": (lambda: QuantileLoss(QUANTILES), _Y, [3], [3]),
    "aggregation": (lambda: AggregationMetric(MAE()), _Y, [1], [1]),
    "torchmetrics": (torchmetrics.MeanSquaredError, _Y, [1], [1]),
    "composite": (lambda: SMAPE() + MAE(), _Y, [1], [1]),
    "weighted composite": (lambda: SMAPE() * 0.5 + RMSE() * 2, _Y, [1], [1]),
    "normal": (NormalDistributionLoss, _Y, [7], [4]),
    "normal, own quantiles": (lambda: NormalDistributionLoss(quantiles=QUANTILES), _Y, [3], [4]),
    "normal, softplus": (
        NormalDistributionLoss,
        target("y", EncoderNormalizer(transformation="softplus")),
        [7],
        [4],
    ),
    "multivariate normal": (lambda: MultivariateNormalDistributionLoss(rank=3), _Y, [7], [7]),
    "negative binomial": (NegativeBinomialDistributionLoss, _COUNT, [7], [2]),
    "log-normal": (LogNormalDistributionLoss, _VOLUME, [7], [2]),
    "log-normal, log1p": (
        LogNormalDistributionLoss,
        target("volume", EncoderNormalizer(transformation="log1p")),
        [7],
        [2],
    ),
    "beta": (BetaDistributionLoss, _SHARE, [7], [2]),
    "implicit quantiles": (ImplicitQuantileNetworkDistributionLoss, _Y, [7], [18]),
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
# on horizons of different lengths: the host pads the truth with 0, of which the distribution of
# positive values complains, and cannot average over padded samples
HOST_CANNOT_PAD = ["normal, softplus", "aggregation"]
every_case = pytest.mark.parametrize("name", CASES)


def make_case(name: str, **changes: Any) -> tuple[Any, TimeSeriesDataSet]:
    loss, special, *_ = CASES[name]
    return loss(), make_dataset(**{"time_varying_known_reals": ["price"], **special, **changes})


@every_case
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
    again = loaded.predict(dataset, mode="raw", trainer_kwargs=dict(QUIET)).prediction
    for one, other in zip(to_list(again), parts, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", [name for name in CASES if name not in HOST_CANNOT_PAD])
def test_loss_works_on_horizons_of_different_lengths(name: str) -> None:
    loss, dataset = make_case(name, min_prediction_length=1)
    model = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL)
    trainer = fit(model, dataset, steps=3)
    assert trainer.callback_metrics["train_loss"].isfinite()
    got = model.predict(dataset, return_decoder_lengths=True, trainer_kwargs=dict(QUIET))
    padding = torch.arange(HORIZON) >= got.decoder_lengths[:, None]
    assert padding.any()
    for part in to_list(got.output):
        if part.is_floating_point():
            assert torch.equal(part.isnan(), padding)


@pytest.mark.parametrize(
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
def test_loss_object_serves_a_second_model_after_training(name: str) -> None:
    loss, dataset = make_case(name)
    first = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL)
    fit(first, dataset, steps=1, limit_train_batches=2)  # stops after a training step
    second = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL)
    third = mLSTMTime.from_dataset(dataset, loss=first.loss, **SMALL)
    losses = [id(part) for model in (first, second, third) for part in model.loss.modules()]
    assert len(set(losses)) == len(losses)
    assert not {id(part) for part in to_list(loss)} & set(losses)
    fit(third, dataset)


@every_case
def test_plot_of_a_prediction_is_a_figure(name: str) -> None:
    loss, dataset = make_case(name)
    model = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL).eval()
    x, _ = collate(pick_samples(dataset), torch.float32)
    figures = to_list(model.plot_prediction(x, model(x), idx=1, add_loss_to_title=True))
    assert len(figures) == len(dataset.target_names)
    assert all(isinstance(figure, Figure) for figure in figures)
    plt.close("all")


@pytest.mark.parametrize("weighted", ["MAE", "quantiles", "normal", "negative binomial"])
def test_weights_of_samples_multiply_their_loss(weighted: str) -> None:
    loss, dataset = make_case(weighted, weight="weight")
    model = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL)
    x, (y, weight) = collate(pick_samples(dataset), torch.float32)
    prediction = model(x).prediction.detach()
    plain = model.loss(prediction, (y, None))
    assert torch.isclose(model.loss(prediction, (y, 3 * torch.ones_like(weight))), 3 * plain)
    assert not torch.isclose(model.loss(prediction, (y, weight)), plain)
    fit(model, dataset)


def test_distribution_losses_of_several_targets_keep_states_of_their_own() -> None:
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


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("no covariates", [MAE]),
        ("categorical target", [CrossEntropy]),
        ("list of one target", [MAE]),
        ("mixed targets", [MAE, CrossEntropy]),
    ],
)
def test_default_loss_fits_the_targets(name: str, kinds: list[type]) -> None:
    dataset = configured(name)
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    several = isinstance(dataset.target, list)
    assert isinstance(model.loss, MultiLoss) is several
    assert [type(part) for part in (model.loss.metrics if several else [model.loss])] == kinds
    other = mLSTMTime.from_dataset(dataset, **SMALL)
    assert other.loss is not model.loss


def test_logging_metrics_are_logged_for_every_target() -> None:
    dataset = configured("two targets")
    metrics = nn.ModuleList([SMAPE(), MASE(), torchmetrics.MeanAbsoluteError()])
    model = mLSTMTime.from_dataset(dataset, loss=QuantileLoss(), logging_metrics=metrics, **SMALL)
    logged = fit(model, dataset).callback_metrics
    for name in ("y", "signed"):
        for metric in ("SMAPE", "MASE"):
            assert logged[f"{name} val_{metric}"].isfinite()


def test_median_of_an_untrained_quantile_forecast_is_its_point() -> None:
    dataset = configured("no covariates")
    model = mLSTMTime.from_dataset(dataset, loss=QuantileLoss([0.9, 0.1, 0.5]), **SMALL)
    x, _ = collate(pick_samples(dataset), torch.float32)
    out = model(x)
    assert torch.equal(model.to_prediction(out), out.prediction[..., 2])


# Losses that cannot work are refused at once


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
def test_number_of_losses_must_be_that_of_the_targets(
    dataset: str, loss: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        mLSTMTime.from_dataset(configured(dataset), loss=loss)


@pytest.mark.parametrize(
    ("special", "loss", "reason"),
    [
        (_Y, CrossEntropy(), "categorical"),
        (_LABEL, MAE(), "categorical"),
        (_LABEL, QuantileLoss(), "categorical"),
        (_LABEL, NormalDistributionLoss(), "categorical"),
        (_MIXED, MAE(), "categorical"),
        (_MIXED, [CrossEntropy(), MAE()], "categorical"),
        (_Y, NegativeBinomialDistributionLoss(), "center"),
        (_Y, LogNormalDistributionLoss(), "log"),
        (_Y, BetaDistributionLoss(), "logit"),
        (_Y, QuantileLoss([0.1, 0.9]), r"0\.5"),
    ],
)
def test_loss_that_cannot_work_on_its_target_is_refused(
    special: dict[str, Any], loss: Any, reason: str
) -> None:
    with pytest.raises(ValueError, match=rf"^mLSTMTime: .*{reason}"):
        mLSTMTime.from_dataset(make_dataset(**special), loss=loss)


@pytest.mark.parametrize("loss", ["mae", MAE, nn.MSELoss()], ids=["name", "class", "torch"])
def test_what_is_no_loss_of_the_host_is_refused(loss: Any) -> None:
    with pytest.raises(TypeError, match=r"^mLSTMTime: loss must be"):
        mLSTMTime.from_dataset(configured("no covariates"), loss=loss)


def test_copies_leave_the_original_loss_alone() -> None:
    """What a metric has accumulated stays, whether its owner or the model is copied."""
    dataset, loss = configured("no covariates"), MAE()
    loss.update(torch.zeros(2, 6, 1), torch.ones(2, 6))
    model = mLSTMTime.from_dataset(dataset, loss=loss)
    assert loss.compute() == 1
    model.loss.update(torch.zeros(2, 6, 1), torch.ones(2, 6))
    other = deepcopy(model)
    assert model.loss.compute() == 1
    other.loss.update(torch.zeros(2, 6, 1), 3 * torch.ones(2, 6))
    assert other.loss.compute() == 3
    assert model.loss.compute() == 1
