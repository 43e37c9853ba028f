"""No mode of ``predict`` returns a number that is not finite."""

from typing import Any

import pytest
import torch
from pytorch_forecasting import EncoderNormalizer, TimeSeriesDataSet
from pytorch_forecasting.metrics import (
    MAE,
    LogNormalDistributionLoss,
    MultiLoss,
    PoissonLoss,
    QuantileLoss,
)

from helpers.datasets import CONFIGURATIONS, QUIET, make_dataset
from helpers.models import make_model
from helpers.products import spread
from pytorch_forecasting_mlstm import mLSTMTime

LOG = {"target_normalizer": EncoderNormalizer(transformation="log")}


def diverged(dataset: TimeSeriesDataSet, loss: Any, value: float) -> mLSTMTime:
    """Return a model whose network puts out about this value."""
    model = make_model(dataset, loss=loss).float()
    with torch.no_grad():
        model.network.residual_head.bias.fill_(value)
    return model


@spread(
    "mode, case",
    ["prediction", "quantiles", "raw", ("raw", "prediction")],
    {
        "weights": (MAE(), {}, torch.nan),
        "quantiles": (QuantileLoss([0.1, 0.9]), {}, torch.inf),
        "exponential": (MAE(), LOG, 500.0),
    },
)
def test_prediction_that_is_not_finite_is_named(
    mode: Any, case: tuple[Any, dict[str, Any], float]
) -> None:
    loss, changes, value = case
    dataset = make_dataset(**changes)
    model = diverged(dataset, loss, value)
    message = r"^mLSTMTime.predict: .* (nan|inf) of 'y' for series='s0' at t=8 from \w+Loss|MAE"
    with pytest.raises(ValueError, match=message):
        model.predict(dataset, mode=mode, trainer_kwargs=dict(QUIET))


@pytest.mark.parametrize(
    ("loss", "changes", "value"),
    [
        pytest.param(LogNormalDistributionLoss(), LOG, 300.0, id="mean of a distribution"),
        pytest.param(PoissonLoss(), {}, 3000.0, id="rate"),
    ],
)
@pytest.mark.parametrize("mode", ["prediction", "quantiles"])
def test_parameters_may_be_finite_without_their_forecast(
    mode: str, loss: Any, changes: dict[str, Any], value: float
) -> None:
    dataset = make_dataset(**changes)
    model = diverged(dataset, loss, value)
    with pytest.raises(ValueError, match=r"predict: a forecast must be finite, got (nan|inf)"):
        model.predict(dataset, mode=mode, trainer_kwargs=dict(QUIET))


def test_prediction_of_the_second_target_is_named() -> None:
    dataset = make_dataset(**CONFIGURATIONS["two targets"])
    model = make_model(dataset).float()
    last = model.network.output_sizes[-1]
    with torch.no_grad():
        model.network.residual_head.bias[-last:] = torch.nan
    name = dataset.target_names[-1]
    assert isinstance(model.loss, MultiLoss)
    with pytest.raises(ValueError, match=f"got nan of '{name}' for series="):
        model.predict(dataset, trainer_kwargs=dict(QUIET))


def test_steps_after_the_end_of_a_horizon_are_not_checked() -> None:
    dataset = make_dataset(min_prediction_length=1)
    result = make_model(dataset).float().predict(dataset, trainer_kwargs=dict(QUIET))
    assert result.isnan().any()
