"""Losses of torch.nn, by an adapter like the one of pytorch-forecasting from 1.9 on."""

import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_forecasting.metrics import (
    MAE,
    RMSE,
    SMAPE,
    MultiLoss,
)
from torch import nn

from helpers.checkpoints import save
from helpers.datasets import (
    collate,
    configured,
    fit,
    make_dataset,
    make_table,
    pick_samples,
)
from helpers.models import SMALL
from helpers.upstream import needs_adapter
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm._upstream import NNLossAdapter
from pytorch_forecasting_mlstm.models.base.losses import nn_loss
from pytorch_forecasting_mlstm.models.base.losses.factory import clone_loss
from pytorch_forecasting_mlstm.models.base.losses.nn_loss import NNLoss, unwrap_nn_loss
from pytorch_forecasting_mlstm.models.base.losses.output import (
    pack_targets,
)


@pytest.mark.parametrize("horizons", ["equal", "variable"])
@pytest.mark.parametrize(
    "loss", [nn.HuberLoss(delta=0.7), nn.L1Loss(), nn.MSELoss(), nn.SmoothL1Loss()]
)
def test_loss_of_torch_averages_over_valid_steps(loss: nn.Module, horizons: str) -> None:
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(3, 4, 1, generator=generator, requires_grad=True)
    target = torch.randn(3, 4, generator=generator)
    weight = torch.rand(3, 4, generator=generator)
    lengths = torch.tensor([4, 4, 4] if horizons == "equal" else [4, 1, 3])
    valid = torch.arange(4) < lengths[:, None]
    metric = clone_loss(loss, "mLSTMTime")
    y = pack_targets((target, None), lengths)
    actual = metric(output, y)
    expected = loss(output[..., 0][valid], target[valid])
    torch.testing.assert_close(actual, expected)
    gradients = [torch.autograd.grad(value, output)[0] for value in (actual, expected)]
    torch.testing.assert_close(*gradients)
    terms = type(loss)(
        reduction="none", **({"delta": 0.7} if isinstance(loss, nn.HuberLoss) else {})
    )
    weighted = (terms(output[..., 0], target) * weight)[valid].sum() / valid.sum()
    torch.testing.assert_close(metric(output, pack_targets((target, weight), lengths)), weighted)


def test_loss_of_torch_survives_a_checkpoint(tmp_path: Path) -> None:
    dataset = configured("no covariates")
    model = mLSTMTime.from_dataset(dataset, loss=nn.HuberLoss(delta=0.3), **SMALL)
    assert model.loss.name == "HuberLoss"
    loaded = mLSTMTime.load_from_checkpoint(save(model, tmp_path / "model.ckpt"))
    x, y = collate(pick_samples(dataset))
    output = model(x).prediction
    assert unwrap_nn_loss(loaded.loss).delta == 0.3
    torch.testing.assert_close(loaded.loss(output, y), model.loss(output, y))


@pytest.mark.parametrize(
    ("loss", "metric"),
    [(nn.L1Loss(), MAE()), (nn.MSELoss(), RMSE(reduction="mean"))],
    ids=["absolute", "squared"],
)
@pytest.mark.parametrize("name", ["no covariates", "weights", "horizons of 1 to 4 steps"])
def test_training_with_a_loss_of_torch_is_that_with_the_metric(
    name: str, loss: nn.Module, metric: Any
) -> None:
    changes = {"no covariates": {}, "weights": {"weight": "weight"}}.get(
        name, {"min_prediction_length": 1}
    )
    table = make_table()
    table["weight"] = 0.5 + (table["t"] % 3)
    dataset = make_dataset(table, **changes)
    weights = []
    for either in (loss, metric):
        torch.manual_seed(0)
        model = mLSTMTime.from_dataset(dataset, loss=either, **SMALL)
        fit(model, dataset, steps=3)
        weights.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*weights)


def test_point_forecasts_of_a_loss_of_torch_are_its_output() -> None:
    dataset = configured("no covariates")
    model = mLSTMTime.from_dataset(dataset, loss=nn.MSELoss(), **SMALL)
    x, _ = collate(pick_samples(dataset), torch.float32)
    output = model(x)
    assert torch.equal(model.to_prediction(output), output.prediction[..., 0])
    assert torch.equal(model.loss.to_quantiles(output.prediction), output.prediction)


def test_losses_of_torch_may_be_parts_of_others() -> None:
    dataset = configured("two targets")
    total = mLSTMTime.from_dataset(dataset, loss=[SMAPE() + nn.L1Loss(), nn.MSELoss()], **SMALL)
    x, y = collate(pick_samples(dataset), torch.float32)
    expected = MultiLoss([SMAPE() + MAE(), RMSE(reduction="mean")])
    prediction = total(x).prediction
    torch.testing.assert_close(total.loss(prediction, y), expected(prediction, y))


@needs_adapter
@pytest.mark.parametrize("make", [nn.HuberLoss, nn.L1Loss, nn.MSELoss, nn.SmoothL1Loss])
def test_loss_of_torch_is_adapted_as_by_pytorch_forecasting(make: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    output, target = torch.randn(3, 4, 1, generator=generator), torch.randn(3, 4)
    weight = torch.rand(3, 4, generator=generator)
    ours, theirs = NNLoss(make()), NNLossAdapter(make())
    for weights in (None, weight):
        y = pack_targets((target, weights), torch.tensor([4, 1, 3]))
        torch.testing.assert_close(ours(output, y), theirs(output, y))
    assert torch.equal(ours.to_prediction(output), theirs.to_prediction(output))
    assert torch.equal(ours.to_quantiles(output), theirs.to_quantiles(output))
    assert isinstance(clone_loss(make(), "caller"), NNLossAdapter)


@needs_adapter
def test_adapters_of_other_losses_of_torch_are_rejected() -> None:
    dataset = configured("no covariates")
    model = mLSTMTime.from_dataset(dataset, loss=NNLossAdapter(nn.HuberLoss(delta=0.3)), **SMALL)
    assert unwrap_nn_loss(model.loss).delta == 0.3
    with pytest.raises(TypeError, match="^mLSTMTime: .* got GaussianNLLLoss; .* NormalDistr"):
        mLSTMTime.from_dataset(dataset, loss=NNLossAdapter(nn.GaussianNLLLoss()), **SMALL)
    with pytest.raises(ValueError, match="^mLSTMTime: MSELoss must have reduction='mean'"):
        mLSTMTime.from_dataset(dataset, loss=NNLossAdapter(nn.MSELoss(reduction="none")), **SMALL)


class Halved(NNLoss):
    """A loss that only looks like the one that it adapts."""

    def loss(self, y_pred: Any, target: torch.Tensor) -> torch.Tensor:
        return super().loss(y_pred, target) / 2


def test_a_subclass_of_an_adapter_is_not_taken_for_the_loss_that_it_adapts() -> None:
    halved = Halved(nn.MSELoss())
    assert unwrap_nn_loss(halved) is halved
    for loss in (halved, SMAPE() + halved, MultiLoss([SMAPE(), halved])):
        with pytest.raises(TypeError, match=r"^caller: .* subclass Halved; .* MultiHorizonMetric "):
            clone_loss(loss, "caller")


@needs_adapter
def test_a_subclass_of_the_adapter_of_pytorch_forecasting_is_rejected() -> None:
    loss = type("Mine", (NNLossAdapter,), {})(nn.MSELoss())
    with pytest.raises(TypeError, match=r"^caller: .* subclass Mine; .* MultiHorizonMetric "):
        clone_loss(loss, "caller")


@pytest.mark.parametrize(
    "make", [NNLoss, pytest.param(NNLossAdapter, marks=needs_adapter)], ids=["ours", "theirs"]
)
def test_an_adapter_keeps_its_name(make: Any) -> None:
    loss = make(nn.MSELoss(), name="price error")
    assert clone_loss(loss, "caller").name == "price error"
    assert clone_loss(clone_loss(loss, "caller"), "caller").name == "price error"
    assert deepcopy(clone_loss(loss, "caller")).name == "price error"
    assert clone_loss(nn.MSELoss(), "caller").name == "MSELoss"


def test_files_have_the_names_of_the_adapter_of_pytorch_forecasting() -> None:
    """A file that was written beside one release is read beside another."""
    loss = NNLoss(nn.MSELoss())
    adapter = nn_loss._PointLossAdapter(nn.MSELoss(), "MSELoss", "mean")
    assert vars(loss).keys() == vars(adapter).keys()
    assert vars(loss)["_modules"].keys() == vars(adapter)["_modules"].keys() == {"_loss"}
    for copy in (deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert repr(copy) == repr(loss)
        assert copy.nn_loss is not loss.nn_loss


def test_signs_flip_with_a_loss_of_torch() -> None:
    dataset = make_dataset(max_encoder_length=64, table=make_table(steps=90))
    assert mLSTMTime.from_dataset(dataset, loss=nn.HuberLoss(), **SMALL).random_sign_flip
