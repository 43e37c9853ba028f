"""The scale of forecasts of mLSTMTime, and their precision under autocast."""

from typing import Any

import numpy as np
import pytest
import torch
from pytorch_forecasting import EncoderNormalizer, GroupNormalizer, TimeSeriesDataSet
from pytorch_forecasting.data import TorchNormalizer
from pytorch_forecasting.metrics import (
    MAE,
    NegativeBinomialDistributionLoss,
    NormalDistributionLoss,
    PoissonLoss,
    QuantileLoss,
    TweedieLoss,
)
from pytorch_forecasting.utils import to_list
from torch import Tensor

from helpers.datasets import (
    CONFIGURATIONS,
    collate,
    configured,
    ignore_flat_histories,
    make_dataset,
    make_table,
    pick_samples,
)
from helpers.models import forecast, make_model
from helpers.products import spread
from helpers.tolerances import assert_close
from pytorch_forecasting_mlstm import mLSTMTime

SCALES = {"s0": (4.0, -3.0), "s1": (0.5, 100.0), "s2": (64.0, 1000.0)}


def scaled_pair(**changes: Any) -> tuple[TimeSeriesDataSet, TimeSeriesDataSet, Tensor, Tensor]:
    """Make a dataset, and a second one in which every series is shifted and scaled.

    Also return the factor and the shift of every picked sample. All values are multiples of 1/256,
    which float32, the precision of datasets, represents exactly before and after the change.
    """
    table = make_table()
    table["y"] = (table["y"] * 256).round() / 256
    scaled = table.copy()
    for series, (factor, shift) in SCALES.items():
        scaled.loc[scaled["series"] == series, "y"] *= factor
        scaled.loc[scaled["series"] == series, "y"] += shift
    dataset, changed = make_dataset(table, **changes), make_dataset(scaled, **changes)
    names = changed.x_to_index(collate(pick_samples(changed))[0])["series"]
    factors, shifts = np.array([SCALES[series] for series in names]).T
    return (
        dataset,
        changed,
        torch.from_numpy(factors)[:, None, None],
        torch.from_numpy(shifts)[:, None, None],
    )


def forecast_both(
    dataset: TimeSeriesDataSet, changed: TimeSeriesDataSet, **changes: Any
) -> tuple[mLSTMTime, Tensor, Tensor]:
    """Forecast samples of both datasets with the same weights."""
    model, changed_model = make_model(dataset, **changes), make_model(changed, **changes)
    changed_model.load_state_dict(model.state_dict())
    return (
        model,
        model(collate(pick_samples(dataset))[0]).prediction.detach(),
        changed_model(collate(pick_samples(changed))[0]).prediction.detach(),
    )


NORMALIZERS: dict[str, Any] = {
    "of the series": GroupNormalizer(groups=["series"]),
    "of all series": GroupNormalizer(),
    "of all values": TorchNormalizer(),
    "robust": TorchNormalizer("robust", center=False),
    "of the history": EncoderNormalizer(),
    "none": None,
}
# Datasets compute some parameters and columns in float32, so that equivariance is not exact.
FLOAT32_TOLERANCE = 1e-5


@spread(
    "normalizer, loss", NORMALIZERS, {"point": MAE(), "quantiles": QuantileLoss([0.1, 0.5, 0.8])}
)
def test_forecast_of_a_shifted_and_scaled_series_is_shifted_and_scaled(
    normalizer: Any, loss: Any
) -> None:
    dataset, changed, factor, shift = scaled_pair(
        target_normalizer=normalizer, time_varying_known_reals=["price"], min_encoder_length=2
    )
    _, before, after = forecast_both(dataset, changed, loss=loss, patch_length=3)
    assert_close(after, factor * before + shift, tolerance=1e-10)


@pytest.mark.parametrize("normalizer", NORMALIZERS.values(), ids=NORMALIZERS)
def test_distribution_of_a_shifted_and_scaled_series_is_shifted_and_scaled(
    normalizer: Any,
) -> None:
    dataset, changed, factor, shift = scaled_pair(target_normalizer=normalizer)
    model, before, after = forecast_both(dataset, changed, loss=NormalDistributionLoss())
    quantiles = [model.loss.to_quantiles(part.float()) for part in (before, after)]
    # pytorch-forecasting computes quantiles in float32
    assert_close(quantiles[1], (factor * quantiles[0] + shift).float(), tolerance=FLOAT32_TOLERANCE)


@pytest.mark.parametrize("normalizer", ["of the series", "of all series", "of the history"])
def test_forecast_with_lagged_targets_is_equivariant(normalizer: str) -> None:
    dataset, changed, factor, shift = scaled_pair(
        target_normalizer=NORMALIZERS[normalizer], lags={"y": [1, 5]}
    )
    _, before, after = forecast_both(dataset, changed)
    # lags are normalized in float32
    assert_close(after, factor * before + shift, tolerance=10 * FLOAT32_TOLERANCE)


@pytest.mark.parametrize("normalizer", ["of all series", "of all values", "robust", "none"])
def test_forecast_without_instance_normalization_is_not_equivariant(normalizer: str) -> None:
    dataset, changed, factor, shift = scaled_pair(target_normalizer=NORMALIZERS[normalizer])
    _, before, after = forecast_both(dataset, changed, instance_normalization=False)
    assert ((after - factor * before - shift) / factor).abs().max() > 0.1


@pytest.mark.parametrize(
    "loss", [PoissonLoss(), TweedieLoss(), NegativeBinomialDistributionLoss()], ids=lambda x: x.name
)
def test_forecast_of_scaled_counts_is_scaled(loss: Any) -> None:
    means = []
    for factor in (1, 16):
        table = make_table()
        table["count"] *= factor
        dataset = make_dataset(
            table,
            target="count",
            time_varying_unknown_reals=["count"],
            target_normalizer=GroupNormalizer(center=False),
        )
        torch.manual_seed(0)
        model = make_model(dataset, loss=loss)
        raw = model(collate(pick_samples(dataset))[0]).prediction.detach()
        means.append(model.loss.to_prediction(raw))
    assert_close(means[1], 16 * means[0], tolerance=FLOAT32_TOLERANCE)  # target_scale is in float32


@ignore_flat_histories
@pytest.mark.parametrize("normalizer", NORMALIZERS.values(), ids=NORMALIZERS)
def test_untrained_forecast_of_a_constant_series_is_its_level(normalizer: Any) -> None:
    table = make_table()
    table["y"] = 1000.0
    dataset = make_dataset(table, target_normalizer=normalizer)
    x, _ = collate(pick_samples(dataset), torch.float32)
    (forecasts,) = forecast(mLSTMTime.from_dataset(dataset).eval(), x)
    assert (forecasts - 1000).abs().max() < 5


@pytest.mark.filterwarnings("ignore:scale is below 1e-7:UserWarning")  # at a size of 1e-6
@spread("normalizer, size", NORMALIZERS, [1e-6, 1.0, 1e6])
def test_untrained_forecast_is_in_the_scale_of_the_history(normalizer: Any, size: float) -> None:
    table = make_table()
    table["y"] *= size
    dataset = make_dataset(table, target_normalizer=normalizer)
    x, _ = collate(pick_samples(dataset, count=9), torch.float32)
    (forecasts,) = forecast(mLSTMTime.from_dataset(dataset).eval(), x)
    history = x["encoder_target"]
    distance = (forecasts[..., 0] - history.mean(1, keepdim=True)) / history.std(1, keepdim=True)
    assert distance.abs().max() < 4
    # near the mean, since linear maps and heads start near zero, but not collapsed to it
    assert 1e-3 < distance.abs().mean() < 0.05


@pytest.mark.parametrize(
    "loss", [PoissonLoss(), TweedieLoss(), NegativeBinomialDistributionLoss()], ids=lambda x: x.name
)
@pytest.mark.parametrize("size", [0.1, 1, 1000])
def test_untrained_mean_of_counts_is_in_the_scale_of_the_history(loss: Any, size: float) -> None:
    table = make_table()
    table["count"] = (table["count"] * size).round()
    dataset = make_dataset(
        table,
        target="count",
        time_varying_unknown_reals=["count"],
        target_normalizer=GroupNormalizer(center=False),
    )
    x, _ = collate(pick_samples(dataset, count=9), torch.float32)
    model = mLSTMTime.from_dataset(dataset, loss=loss).eval()
    mean = model.to_prediction(model(x))
    level = x["encoder_target"].mean(1, keepdim=True).clamp_min(0.1)
    assert (mean / level).log().abs().max() < np.log(8)


@ignore_flat_histories
def test_forecast_of_integers_equals_that_of_floats() -> None:
    table = make_table()
    table["whole"] = table["whole"] // 4  # for a scale below 1
    forecasts = []
    for dtype in (int, float):
        dataset = make_dataset(
            table.astype({"whole": dtype}), **CONFIGURATIONS["whole numbers"], min_encoder_length=2
        )
        torch.manual_seed(0)
        model = make_model(dataset)
        forecasts.append(forecast(model, collate(pick_samples(dataset))[0])[0])
    assert_close(forecasts[0], forecasts[1])


# Precision


@pytest.mark.parametrize("name", ["all covariates", "mixed targets"])
def test_bfloat16_autocast_returns_float32_near_float32(name: str) -> None:
    dataset = configured(name)
    model = make_model(dataset, hidden_size=16).float()
    x, _ = collate(pick_samples(dataset), torch.float32)
    expected = forecast(model, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = forecast(model, x)
    std = to_list(x["encoder_target"])[0].std(1)[:, None, None]
    for rounded, exact, unit in zip(actual, expected, (std, 1.0), strict=False):
        assert rounded.dtype == torch.float32
        error = ((rounded - exact) / unit).abs()
        # about twenty roundings to 8 bits, and larger errors after a division by a small norm
        assert 0 < error.mean() < 0.03
        assert error.max() < 0.3


def test_autocast_keeps_large_forecasts_exact() -> None:
    """At a level of 6490, bfloat16 represents only multiples of 32."""
    table = make_table()
    table["y"] += 6490
    dataset = make_dataset(table)
    model = mLSTMTime.from_dataset(dataset).eval()
    x, _ = collate(pick_samples(dataset), torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = forecast(model, x)[0]
    assert (mixed - forecast(model, x)[0]).abs().max() < 0.1
