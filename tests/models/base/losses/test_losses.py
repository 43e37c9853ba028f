"""Losses: their metrics, copies, defaults and output sizes, and outputs in units of the data."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from pytorch_forecasting import (
    EncoderNormalizer,
    GroupNormalizer,
    MultiNormalizer,
    NaNLabelEncoder,
)
from pytorch_forecasting.data import TorchNormalizer
from pytorch_forecasting.metrics import (
    MAE,
    MAPE,
    MASE,
    RMSE,
    SMAPE,
    CrossEntropy,
    MultiLoss,
    MultivariateNormalDistributionLoss,
    NegativeBinomialDistributionLoss,
    NormalDistributionLoss,
    PoissonLoss,
    QuantileLoss,
    TweedieLoss,
)

from helpers.datasets import (
    HORIZON,
    QUIET,
    collate,
    configured,
    make_dataset,
    make_table,
    pick_samples,
)
from helpers.models import SMALL
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.models.base.link import Link
from pytorch_forecasting_mlstm.models.base.losses.factory import clone_loss, resolve_loss
from pytorch_forecasting_mlstm.models.base.losses.link import (
    link_of,
    loss_output_size,
    primary_metrics,
    target_normalizers,
)
from pytorch_forecasting_mlstm.models.base.losses.output import (
    quantile_forecast,
    rescale,
)


@pytest.mark.parametrize(
    ("loss", "link"),
    [
        (MAE(), Link.AFFINE),
        (MASE(), Link.AFFINE),
        (QuantileLoss(), Link.AFFINE),
        (NormalDistributionLoss(), Link.AFFINE),
        (PoissonLoss(), Link.LOG_RATE),
        (TweedieLoss(), Link.LOG_RATE),
        (NegativeBinomialDistributionLoss(), Link.SCALE),
        (CrossEntropy(), Link.CLASSES),
    ],
    ids=lambda x: getattr(x, "name", None),
)
def test_link_of_every_kind_of_loss(loss: Any, link: Link) -> None:
    assert link_of(loss) is link


@pytest.mark.parametrize(
    ("loss", "size"),
    [
        (MAE(), 1),
        (QuantileLoss([0.1, 0.5, 0.9]), 3),
        (NormalDistributionLoss(), 2),
        (MultivariateNormalDistributionLoss(rank=5), 7),
        (NegativeBinomialDistributionLoss(), 2),
    ],
    ids=lambda x: getattr(x, "name", None),
)
def test_loss_output_size_is_what_the_loss_expects(loss: Any, size: int) -> None:
    assert loss_output_size(loss, GroupNormalizer()) == size


def test_loss_output_size_of_a_categorical_target_is_its_number_of_classes() -> None:
    normalizer = configured("categorical target").target_normalizer
    assert loss_output_size(CrossEntropy(), normalizer) == 3


def test_primary_metrics_and_target_normalizers_are_listed_by_target() -> None:
    mae, smape, rmse = MAE(), SMAPE(), RMSE()
    assert primary_metrics(mae) == [mae]
    assert primary_metrics(MultiLoss([mae, rmse])) == [mae, rmse]
    assert primary_metrics(smape + rmse) == [smape]
    assert primary_metrics(MultiLoss([smape + rmse, mae])) == [smape, mae]
    group, by_value = GroupNormalizer(), TorchNormalizer()
    assert target_normalizers(group) == [group]
    assert target_normalizers(MultiNormalizer([group, by_value])) == [group, by_value]


def test_resolve_loss_default_suits_the_kind_of_each_target() -> None:
    assert isinstance(resolve_loss(configured("no covariates"), None, "caller"), MAE)
    assert isinstance(resolve_loss(configured("categorical target"), None, "caller"), CrossEntropy)
    for name, kinds in (
        ("two targets", [MAE, MAE]),
        ("mixed targets", [MAE, CrossEntropy]),
        ("list of one target", [MAE]),
        ("list of one categorical target", [CrossEntropy]),
    ):
        loss = resolve_loss(configured(name), None, "caller")
        assert isinstance(loss, MultiLoss)
        assert [type(part) for part in loss.metrics] == kinds


def test_resolve_loss_copies_one_loss_for_each_target() -> None:
    loss = NormalDistributionLoss(quantiles=[0.1, 0.9])
    resolved = resolve_loss(configured("two targets"), loss, "caller")
    assert [part.quantiles for part in resolved.metrics] == [[0.1, 0.9]] * 2
    assert len({id(part) for part in (loss, *resolved.metrics)}) == 3


def test_resolve_loss_takes_a_list_with_one_for_each_target() -> None:
    resolved = resolve_loss(configured("two targets"), [MAPE(), QuantileLoss()], "caller")
    assert [type(part) for part in resolved.metrics] == [MAPE, QuantileLoss]


@pytest.mark.parametrize(
    "make",
    [
        MAE,
        NormalDistributionLoss,
        lambda: SMAPE() + MAE(),
        lambda: MultiLoss([MAE(), SMAPE() + RMSE()]),
    ],
    ids=["point", "distribution", "composite", "multi"],
)
def test_clone_loss_copies_a_loss_that_holds_a_graph(make: Any) -> None:
    loss = make()
    several = isinstance(loss, MultiLoss)
    weight = torch.ones(2, 3, 4 if isinstance(loss, NormalDistributionLoss) else 1)
    weight.requires_grad_()
    truth = torch.ones(2, 3)
    if isinstance(loss, NormalDistributionLoss):
        loss._transformation = None
    loss([weight * 2] * 2 if several else weight * 2, ([truth] * 2 if several else truth, None))
    copy = clone_loss(loss, "caller")
    assert type(copy) is type(loss)
    assert copy is not loss


def test_rescale_of_rates_ignores_the_normalizer() -> None:
    output, scale = torch.randn(2, 3, 1), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    rates = rescale(PoissonLoss(), output, scale, GroupNormalizer(transformation="relu"))
    assert torch.equal(rates[0], 2 * output[0] + 1)
    assert torch.equal(rates[1], 4 * output[1] + 3)


def test_resolve_loss_treats_integers_with_a_label_encoder_as_classes() -> None:
    """The NaNLabelEncoder of a target decides, not the dtype of its column."""
    dataset = make_dataset(
        target="whole",
        time_varying_unknown_reals=[],
        target_normalizer=NaNLabelEncoder(),
    )
    assert isinstance(resolve_loss(dataset, None, "caller"), CrossEntropy)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("no covariates", [MAE]),
        ("categorical target", [CrossEntropy]),
        ("list of one target", [MAE]),
        ("mixed targets", [MAE, CrossEntropy]),
    ],
)
def test_from_dataset_defaults_to_a_loss_for_each_target(name: str, kinds: list[type]) -> None:
    dataset = configured(name)
    model = mLSTMTime.from_dataset(dataset, **SMALL)
    several = isinstance(dataset.target, list)
    assert isinstance(model.loss, MultiLoss) is several
    assert [type(part) for part in (model.loss.metrics if several else [model.loss])] == kinds
    second_model = mLSTMTime.from_dataset(dataset, **SMALL)
    assert second_model.loss is not model.loss


@pytest.mark.parametrize("transformation", ["log1p", "count"])
def test_rescale_clamps_at_zero_with_a_positive_gradient(transformation: str) -> None:
    normalizer = EncoderNormalizer(transformation=transformation)
    output = torch.tensor([[[-3.0], [0.5]]], requires_grad=True)
    scale = torch.tensor([[0.5, 1.0]])
    y = rescale(MAE(), output, scale, normalizer)
    assert y[0, 0] == 0
    assert y[0, 1] >= 0
    y.sum().backward()
    assert (output.grad > 0).all()


def test_point_forecast_of_quantiles_is_their_median() -> None:
    dataset = configured("no covariates")
    model = mLSTMTime.from_dataset(dataset, loss=QuantileLoss([0.9, 0.1, 0.5]), **SMALL)
    x, _ = collate(pick_samples(dataset), torch.float32)
    out = model(x)
    median = out.prediction.sort(-1).values[..., 1]  # those of an untrained network cross
    assert torch.equal(model.to_prediction(out), median)


@pytest.mark.parametrize(
    ("quantiles", "expected"),
    [([0.9, 0.1], 3.0), ([0.1, 0.3, 0.7], 4.0), ([0.7, 0.2, 0.4], 7 / 3), ([0.4, 0.6, 0.5], 8.0)],
)
def test_point_forecast_without_the_median_is_interpolated(
    quantiles: list[float], expected: float
) -> None:
    model = mLSTMTime.from_dataset(
        configured("no covariates"), loss=QuantileLoss(quantiles), **SMALL
    )
    numbers = {0.9: 5.0, 0.1: 1.0, 0.3: 2.0, 0.7: 6.0, 0.2: -1.0, 0.4: 0.5, 0.6: 9.0, 0.5: 8.0}
    prediction = torch.tensor([numbers[q] for q in quantiles]).expand(2, HORIZON, -1)
    point = model.to_prediction(model.to_network_output(prediction=prediction))
    assert torch.allclose(point, torch.full((2, HORIZON), expected))


def test_clone_loss_does_not_change_the_original() -> None:
    """The accumulated values of a metric stay, whether the loss or the model is copied."""
    dataset, loss = configured("no covariates"), MAE()
    loss.update(torch.zeros(2, 6, 1), torch.ones(2, 6))
    model = mLSTMTime.from_dataset(dataset, loss=loss)
    assert loss.compute() == 1
    model.loss.update(torch.zeros(2, 6, 1), torch.ones(2, 6))
    model_copy = deepcopy(model)
    assert model.loss.compute() == 1
    model_copy.loss.update(torch.zeros(2, 6, 1), 3 * torch.ones(2, 6))
    assert model_copy.loss.compute() == 3
    assert model.loss.compute() == 1


# Quantiles on request


LEVELS = [0.25, 0.1, 0.9, 0.77]


@pytest.mark.parametrize("trained", [[0.1, 0.5, 0.9], [0.9, 0.1], [0.02, 0.25, 0.5, 0.77, 0.98]])
def test_other_quantiles_are_interpolated(trained: list[float]) -> None:
    dataset = configured("no covariates")
    model = mLSTMTime.from_dataset(dataset, loss=QuantileLoss(trained), **SMALL)
    own = model.predict(dataset, mode="quantiles", trainer_kwargs={**QUIET})
    own = own.numpy()[..., np.argsort(trained)]
    own.sort(-1)
    actual = model.predict(
        dataset, mode="quantiles", mode_kwargs={"quantiles": LEVELS}, trainer_kwargs={**QUIET}
    )
    expected = np.apply_along_axis(lambda row: np.interp(LEVELS, sorted(trained), row), -1, own)
    assert actual.shape == (*own.shape[:2], len(LEVELS))
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_distribution_and_a_rate_have_all_quantiles() -> None:
    loss = NormalDistributionLoss()
    loss._transformation = None
    parameters = torch.tensor([[[0.0, 1.0, 5.0, 2.0]]])  # center, scale, location, deviation
    actual = quantile_forecast(loss, parameters, [0.1, 0.8], "mLSTMTime", n_samples=20_000)
    expected = torch.distributions.Normal(5.0, 2.0).icdf(torch.tensor([0.1, 0.8]))
    assert torch.allclose(actual.flatten(), expected, atol=0.15)  # of samples
    rate = torch.tensor([[[2.0]]])
    poisson = quantile_forecast(PoissonLoss(), rate, [0.1, 0.8], "mLSTMTime")
    assert (
        poisson.flatten().tolist()
        == scipy.stats.poisson(float(rate.exp())).ppf([0.1, 0.8]).tolist()
    )


def test_an_infinite_rate_has_no_quantiles() -> None:
    """SciPy 1.15 says 0, which would hide that the training diverged."""
    log_rates = torch.tensor([[[2.0], [3000.0]]])
    levels = [0.8, 0.1]
    undefined = quantile_forecast(PoissonLoss(), log_rates, levels, "mLSTMTime").isnan()
    assert undefined.tolist() == [[[False, False], [True, True]]]


@pytest.mark.parametrize(
    ("loss", "quantiles", "message"),
    [
        (QuantileLoss([0.1, 0.5, 0.9]), [0.05], "lowest and the highest .* 0.1 and 0.9, got"),
        (QuantileLoss([0.1, 0.5, 0.9]), [0.95, 0.5], "lowest and the highest .* 0.1 and 0.9, got"),
        (QuantileLoss([0.1, 0.5, 0.9]), [1.2], "levels between 0 and 1, got"),
        (QuantileLoss([0.1, 0.5, 0.9]), [], "levels between 0 and 1, got"),
        (MAE(), [0.5], "need a QuantileLoss or a distribution, got a model with MAE"),
    ],
)
def test_impossible_quantiles_are_rejected(loss: Any, quantiles: list[float], message: str) -> None:
    dataset = configured("no covariates")
    model = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL)
    with pytest.raises(ValueError, match=f"^mLSTMTime: quantiles .*{message}"):
        model.predict(
            dataset,
            mode="quantiles",
            mode_kwargs={"quantiles": quantiles},
            trainer_kwargs={**QUIET},
        )


def test_quantiles_are_not_asked_of_a_point_forecast() -> None:
    dataset = configured("no covariates")
    model = mLSTMTime.from_dataset(dataset, loss=QuantileLoss([0.1, 0.5, 0.9]), **SMALL)
    with pytest.raises(ValueError, match="^mLSTMTime: quantiles .*mode='quantiles'"):
        model.predict(dataset, mode_kwargs={"quantiles": [0.25]}, trainer_kwargs={**QUIET})


@pytest.mark.parametrize("levels", [[0.1, 0.5, 0.9], [0.5, 0.9, 0.02, 0.1], [0.3, 0.8]])
def test_quantiles_do_not_cross_in_predict_and_forecast(levels: list[float]) -> None:
    table, dataset = make_table(), configured("no covariates")
    model = mLSTMTime.from_dataset(dataset, loss=QuantileLoss(levels), hidden_size=8, num_heads=2)
    with torch.no_grad():  # they cross
        for parameter in model.network.parameters():
            parameter += 0.3 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(1)
            )
    order = np.argsort(levels)
    raw = model.predict(table, mode=("raw", "prediction"), trainer_kwargs={**QUIET})
    assert (raw[..., order].diff(dim=-1) < 0).any()
    quantiles = model.predict(table, mode="quantiles", trainer_kwargs={**QUIET})
    assert (quantiles[..., order].diff(dim=-1) >= 0).all()
    torch.testing.assert_close(quantiles.sort(-1).values, raw.sort(-1).values)
    points = model.predict(table, trainer_kwargs={**QUIET})
    if 0.5 in levels:
        assert torch.equal(points, quantiles[..., levels.index(0.5)])
    requested = model.predict(
        table,
        mode="quantiles",
        mode_kwargs={"quantiles": levels},
        trainer_kwargs={**QUIET},
    )
    torch.testing.assert_close(requested, quantiles)
    whole = table[table["t"] <= table["t"].max() - points.shape[1]]
    forecast = model.forecast(whole)
    for column, level in enumerate(levels):
        expected = forecast[f"q{level:g}"].to_numpy().reshape(len(points), -1)
        np.testing.assert_allclose(quantiles[..., column], expected, rtol=1e-4, atol=1e-4)
    expected = forecast["prediction"].to_numpy().reshape(len(points), -1)
    np.testing.assert_allclose(points, expected, rtol=1e-4, atol=1e-4)
