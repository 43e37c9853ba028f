"""Losses and metrics skip the steps at which the target is missing (NaN)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from pytorch_forecasting import GroupNormalizer, TimeSeriesDataSet
from pytorch_forecasting.metrics import (
    MAE,
    MAPE,
    MASE,
    RMSE,
    SMAPE,
    BetaDistributionLoss,
    ImplicitQuantileNetworkDistributionLoss,
    LogNormalDistributionLoss,
    MQF2DistributionLoss,
    MultiLoss,
    MultivariateNormalDistributionLoss,
    NegativeBinomialDistributionLoss,
    NormalDistributionLoss,
    PoissonLoss,
    QuantileLoss,
    TweedieLoss,
)
from pytorch_forecasting.metrics.base_metrics import AggregationMetric
from torch import Tensor, nn

from helpers.datasets import (
    CONFIGURATIONS,
    HORIZON,
    collate,
    fit,
    make_table,
    pick_samples,
    shared_dataset,
    with_target,
)
from helpers.models import SMALL, make_model
from helpers.products import alternate
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet
from pytorch_forecasting_mlstm.models.base.losses.factory import clone_loss
from pytorch_forecasting_mlstm.models.base.losses.link import component_metrics, per_target_losses
from pytorch_forecasting_mlstm.models.base.losses.missing import observed_loss
from pytorch_forecasting_mlstm.models.base.losses.output import pack_targets

_Y = with_target("y", GroupNormalizer(groups=["series"]))
_TWO = CONFIGURATIONS["two targets"]

Case = tuple[Callable[[], Any], dict[str, Any]]
CASES: dict[str, Case] = {
    "MAE": (MAE, _Y),
    "SMAPE": (SMAPE, _Y),
    "MAPE": (MAPE, _Y),
    "RMSE": (RMSE, _Y),
    "Poisson": (PoissonLoss, with_target("count", GroupNormalizer(center=False))),
    "Tweedie": (TweedieLoss, with_target("count", GroupNormalizer())),
    "quantiles": (lambda: QuantileLoss([0.1, 0.5, 0.8]), _Y),
    "Huber of torch": (lambda: nn.HuberLoss(delta=0.5), _Y),
    "torchmetrics": (torchmetrics.MeanSquaredError, _Y),
    "composite": (lambda: SMAPE() * 0.5 + RMSE() * 2, _Y),
    "normal": (NormalDistributionLoss, _Y),
    "negative binomial": (
        NegativeBinomialDistributionLoss,
        with_target("count", GroupNormalizer(center=False)),
    ),
    "log-normal": (
        LogNormalDistributionLoss,
        with_target("volume", GroupNormalizer(transformation="log")),
    ),
    "beta": (
        BetaDistributionLoss,
        with_target("share", GroupNormalizer(transformation="logit")),
    ),
    "two points": (lambda: MultiLoss([MAE(), SMAPE() + RMSE()], weights=[1.0, 3.0]), _TWO),
    "quantiles and distribution": (
        lambda: MultiLoss([QuantileLoss([0.1, 0.5]), NormalDistributionLoss()]),
        _TWO,
    ),
}


def make_batch(name: str, **changes: Any) -> tuple[mLSTMTime, Any, Any]:
    make_loss, settings = CASES[name]
    dataset = shared_dataset(**settings, **changes)
    model = make_model(dataset, loss=make_loss())
    return model, *collate(pick_samples(dataset))


def hide(target: Any, seed: int = 0) -> Any:
    """Hide two fifths of the steps, with all of one sample and none of another."""
    if isinstance(target, list):
        return [hide(part, number) for number, part in enumerate(target)]
    torch.manual_seed(seed)
    missing = torch.rand(target.shape) < 0.4
    missing[seed], missing[seed + 1] = True, False
    return target.masked_fill(missing, torch.nan)


def mean_over_steps(loss: Any, prediction: Tensor, target: Tensor, weight: Tensor | None) -> float:
    """Average the loss of one target over single steps, in a loop."""
    total = 0.0
    for part, factor in zip(component_metrics(loss), getattr(loss, "_weights", [1.0]), strict=True):
        steps = []
        for sample, step in (~target.isnan()).nonzero().tolist():
            metric = clone_loss(part, "test")
            at = slice(sample, sample + 1), slice(step, step + 1)
            scale = 1.0 if weight is None else float(weight[at])
            value = float(metric(prediction[at], target[at]))
            steps.append(scale * (value**2 if isinstance(part, RMSE) else value))
        mean = float(np.mean(steps))
        total += factor * (mean**0.5 if isinstance(part, RMSE) else mean)
    return total


@alternate("name", CASES)
def test_loss_is_the_mean_over_observed_steps(name: str) -> None:
    model, x, (target, weight) = make_batch(name)
    model.train()
    target = hide(target)
    log, out = step(model, x, (target, weight))
    several = isinstance(model.loss, MultiLoss)
    prediction = out["prediction"]
    expected = sum(
        factor * mean_over_steps(part, p.detach(), t, None)
        for part, factor, p, t in zip(
            per_target_losses(model.loss),
            model.loss.weights if several else [1.0],
            prediction if several else [prediction],
            target if several else [target],
            strict=True,
        )
    )
    torch.testing.assert_close(
        log["loss"].detach().double(),
        torch.tensor(expected, dtype=torch.float64),
        rtol=1e-5,
        atol=1e-6,
    )  # pytorch-forecasting sums in float32
    log["loss"].backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


def step(model: mLSTMTime, x: dict[str, Any], y: Any) -> tuple[Any, Any]:
    """Run a training step without a Trainer; nothing is logged."""
    model.__dict__["logged"] = logged = []
    state = pytest.MonkeyPatch()
    state.setattr(mLSTMTime, "predicting", property(lambda _: False))
    state.setattr(mLSTMTime, "current_stage", "train")
    state.setattr(
        "pytorch_forecasting.models.base.BaseModel.log",
        lambda _, name, value, **kwargs: logged.append((name, value, kwargs["batch_size"])),
    )
    try:
        log, out = model.step(x, y, 0)
        if model.logging_metrics:
            model.log_metrics(x, y, out)
        return log, out
    finally:
        state.undo()


@alternate("name", [name for name in CASES if name != "torchmetrics"], first=1)
def test_loss_of_hidden_ends_is_that_of_shorter_horizons(name: str) -> None:
    """The independent path is pytorch-forecasting's, which masks horizons of different lengths."""
    model, x, (target, weight) = make_batch(name)
    lengths = torch.arange(len(x["decoder_lengths"])) % HORIZON + 1
    ends = torch.arange(HORIZON) >= lengths[:, None]
    targets = target if isinstance(target, list) else [target]
    hidden = [part.double().masked_fill(ends, torch.nan) for part in targets]
    prediction = model(x).prediction
    # in the support of every loss, where pytorch-forecasting puts its padding
    y = pack_targets((targets if isinstance(target, list) else target, weight), lengths)
    expected = clone_loss(model.loss, "test")(prediction, y)
    loss = clone_loss(model.loss, "test")
    actual = observed_loss(loss, prediction, (hidden if len(hidden) > 1 else hidden[0], weight))
    if name in (
        "log-normal",
        "beta",
    ):  # whose padding is outside of their support: nothing to compare
        assert actual.isfinite()
        return
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_loss_weights_observed_steps() -> None:
    dataset = shared_dataset(**_Y, weight="weight")
    model = make_model(dataset, loss=MAE()).train()
    x, (target, weight) = collate(pick_samples(dataset))
    target = hide(target)
    log, out = step(model, x, (target, weight))
    expected = mean_over_steps(model.loss, out["prediction"].detach(), target, weight)
    assert float(log["loss"].detach()) == pytest.approx(expected, rel=1e-5)


def test_mase_scales_by_observed_changes() -> None:
    dataset = shared_dataset(**_Y, min_encoder_length=3, min_prediction_length=2)
    model = make_model(dataset, loss=MASE()).train()
    x, (target, weight) = collate(pick_samples(dataset))
    history = hide(x["encoder_target"])
    history[0] = torch.nan  # its horizon is hidden as well: no change is observed
    target = hide(target)
    x = {**x, "encoder_target": history}
    log, out = step(model, x, (target, weight))
    errors = []
    for sample, (n, s) in enumerate(zip(x["encoder_lengths"], x["decoder_lengths"], strict=True)):
        series = torch.cat([history[sample, :n], target[sample, :s]]).numpy()
        changes = np.abs(np.diff(series))
        changes = changes[~np.isnan(changes)]
        if len(changes):
            scale = changes.sum() / (len(changes) + 1) + 1e-6
            error = np.abs(out["prediction"][sample, :s, 0].detach().numpy() - series[n:])
            errors.extend((error / scale)[~np.isnan(error)])
    assert float(log["loss"].detach()) == pytest.approx(float(np.mean(errors)), rel=1e-5)
    complete = clone_loss(model.loss, "test")
    x, (target, weight) = collate(pick_samples(dataset))
    y = pack_targets((target, weight), x["decoder_lengths"])
    arguments = {"encoder_target": x["encoder_target"], "encoder_lengths": x["encoder_lengths"]}
    torch.testing.assert_close(
        observed_loss(complete, out["prediction"], y, **arguments),
        complete(out["prediction"], y, **arguments),
    )


@alternate("name", [*CASES, "MASE"])
def test_batch_without_any_target_trains_nothing(name: str) -> None:
    make_loss, settings = {**CASES, "MASE": (MASE, _Y)}[name]
    dataset = shared_dataset(**settings)
    model = make_model(dataset, loss=make_loss()).train()
    x, (target, weight) = collate(pick_samples(dataset))
    parts = target if isinstance(target, list) else [target]
    unknown = [torch.full(part.shape, torch.nan, dtype=torch.float64) for part in parts]
    log, _ = step(model, x, (unknown if isinstance(target, list) else unknown[0], weight))
    assert log["loss"] == 0
    log["loss"].backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    assert model.logged[0][2] > 0  # a mean over such batches only is 0, not NaN


def test_logged_means_are_over_observed_steps() -> None:
    dataset = shared_dataset(**_Y, min_encoder_length=3)
    model = make_model(dataset, loss=RMSE(), logging_metrics=[SMAPE(), MASE()]).train()
    x, (target, weight) = collate(pick_samples(dataset))
    hidden = hide(target)
    log, out = step(model, x, (hidden, weight))
    share = float((~hidden.isnan()).double().mean())
    names, values, sizes = zip(*model.logged, strict=True)
    assert [name.split("_")[-1] for name in names] == ["loss", "SMAPE", "MASE"]
    assert all(size == pytest.approx(share * len(target)) for size in sizes)
    expected = mean_over_steps(SMAPE(), out["prediction"].detach(), hidden, None)
    assert float(values[1]) == pytest.approx(expected, rel=1e-5)
    assert torch.isfinite(torch.stack([value.detach() for value in values])).all()
    step(model, x, (target, weight))
    assert model.logged[0][2] == len(target)  # unchanged for complete batches


@pytest.mark.parametrize(
    "loss",
    [
        AggregationMetric(MAE()),
        MultivariateNormalDistributionLoss(rank=3),
        pytest.param(
            lambda: MQF2DistributionLoss(prediction_length=HORIZON), id="MQF2DistributionLoss"
        ),
    ],
)
def test_joint_losses_reject_missing_targets(loss: Any) -> None:
    if callable(loss) and not isinstance(loss, nn.Module):
        pytest.importorskip("cpflows")
        loss = loss()
    table = make_table()
    table.loc[[4, 30], "y"] = np.nan
    dataset = BatchedTimeSeriesDataSet.from_parameters(shared_dataset(**_Y).get_parameters(), table)
    message = r"^mLSTMTime: .* cannot skip missing values, .* 'y' that is NaN in 2 of 78 rows; fill"
    with pytest.raises(ValueError, match=message):
        mLSTMTime.from_dataset(dataset, loss=loss, **SMALL)
    with pytest.raises(ValueError, match=r"must be given a target at every step, got 2 of 8 that"):
        target = torch.tensor([[1.0, torch.nan, torch.nan, 2.0], [1.0, 2.0, 3.0, 4.0]])
        observed_loss(loss, torch.zeros(2, 4, 1), (target, None))


def test_implicit_quantiles_skip_missing_targets() -> None:
    dataset = shared_dataset(**_Y)
    model = make_model(dataset, loss=ImplicitQuantileNetworkDistributionLoss()).train()
    x, (target, weight) = collate(pick_samples(dataset))
    log, _ = step(model, x, (hide(target), weight))
    log["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert isinstance(dataset, TimeSeriesDataSet) and log["loss"] > 0


def test_training_and_validation_log_finite_means() -> None:
    """With a series without any target, and a validation batch without any."""
    table = make_table()
    table["y"] = table["y"].mask((table["series"] == "s2") | (table["t"] % 4 == 0))
    dataset = BatchedTimeSeriesDataSet.from_parameters(
        shared_dataset(**_Y, min_encoder_length=3).get_parameters(), table
    )
    model = mLSTMTime.from_dataset(
        dataset, loss=QuantileLoss([0.1, 0.5]), logging_metrics=[RMSE(), MASE()], **SMALL
    )
    trainer = fit(model, dataset, batch_size=8, limit_val_batches=20)
    assert {
        "train_loss_epoch",
        "val_loss",
        "val_RMSE",
        "val_MASE",
    } <= trainer.callback_metrics.keys()
    assert all(value.isfinite() and value > 0 for value in trainer.callback_metrics.values())
    assert all(parameter.isfinite().all() for parameter in model.parameters())
