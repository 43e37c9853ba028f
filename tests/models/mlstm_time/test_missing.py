"""Missing values (NaN) of histories and horizons: what the network makes of them."""

from typing import Any

import numpy as np
import pytest
import torch
from pytorch_forecasting import GroupNormalizer
from torch import Tensor

from helpers.datasets import collate, make_dataset, make_table, pick_samples
from helpers.models import forecast, make_model
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet
from pytorch_forecasting_mlstm.models.mlstm_time import missing
from pytorch_forecasting_mlstm.models.mlstm_time.adapter import network_inputs
from pytorch_forecasting_mlstm.models.mlstm_time.missing import fill_missing

COVARIATES: dict[str, Any] = {
    "time_varying_known_reals": ["price"],
    "time_varying_unknown_reals": ["y", "noise"],
    "min_encoder_length": 3,
    "lags": {"y": [4]},
}


def interpolate(series: Tensor, observed: Tensor) -> Tensor:
    """Interpolate each series (B, T) by NumPy, which also repeats the ends."""
    rows = []
    for values, known in zip(series.numpy(), observed.numpy(), strict=True):
        at = np.flatnonzero(known)
        steps = np.arange(len(values))
        rows.append(np.interp(steps, at, values[at]) if len(at) else np.zeros(len(values)))
    return torch.from_numpy(np.stack(rows))


@pytest.mark.parametrize("steps", [1, 2, 7, 33])
@pytest.mark.parametrize("filler", [0.0, 1e9, torch.nan, -torch.inf])
@pytest.mark.parametrize("features", [None, 3])
def test_fill_missing_interpolates(steps: int, filler: float, features: int | None) -> None:
    torch.manual_seed(steps)
    shape = (40, steps) if features is None else (40, steps, features)
    x, observed = torch.randn(shape, dtype=torch.float64), torch.rand(shape) < 0.4
    valid = torch.ones(40, steps, dtype=torch.bool)
    filled = fill_missing(x.masked_fill(~observed, filler), observed, valid)
    if features is None:
        expected = interpolate(x, observed)
    else:
        columns = zip(x.unbind(-1), observed.unbind(-1), strict=True)
        expected = torch.stack([interpolate(*column) for column in columns], -1)
    torch.testing.assert_close(filled, expected, rtol=0, atol=1e-13)
    assert torch.equal(filled[observed], x[observed])


def test_fill_missing_has_finite_gradients() -> None:
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    observed = torch.tensor([[1, 0, 0, 1, 0, 1], [0, 0, 1, 0, 0, 0], [0] * 6]).bool()
    valid = torch.ones(3, 6, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda x: fill_missing(x, observed, valid), x)


def hide(x: dict[str, Any], *places: tuple[int, int], value: float = torch.nan) -> dict[str, Any]:
    """Return a batch whose target is replaced at (sample, step) of the history."""
    history = x["encoder_target"].clone()
    for sample, step in places:
        history[sample, step] = value
    return {**x, "encoder_target": history}


@pytest.mark.parametrize("transformation", [None, "log"])
def test_forecast_reads_the_interpolated_history(transformation: str | None) -> None:
    """Without instance normalization, nothing else depends on the missing values."""
    normalizer = GroupNormalizer(groups=["series"], transformation=transformation)
    dataset = make_dataset(target_normalizer=normalizer)
    model = make_model(dataset, instance_normalization=False)
    x, _ = collate(pick_samples(dataset))
    hidden = hide(x, (0, 0), (0, 3), (0, 4), (1, 7), (2, 6), (2, 7))
    y = x["encoder_target"] if transformation is None else x["encoder_target"].log()
    line = interpolate(y, ~hidden["encoder_target"].isnan())
    line = line if transformation is None else line.exp()
    expected = forecast(model, {**x, "encoder_target": line})[0]
    torch.testing.assert_close(forecast(model, hidden)[0], expected)


def test_statistics_skip_missing_values() -> None:
    dataset = make_dataset()
    model = make_model(dataset)
    x, _ = collate(pick_samples(dataset))
    hidden = hide(x, (0, 0), (0, 3), (1, 7), (2, 6))
    inputs = network_inputs(hidden, model.reference_scales(hidden))
    (history,), (scale,) = inputs.target_histories, inputs.target_scales
    mask = torch.ones_like(history).bool()
    encoded = model.network.target_encoders[0](
        history, mask, mask, scale, inputs.reference_scales[0]
    )
    y = ((history - scale[:, :1]) / scale[:, 1:]).numpy()
    center, spread = np.nanmean(y, 1, keepdims=True), np.nanstd(y, 1, keepdims=True)
    torch.testing.assert_close(encoded.statistics.center, torch.from_numpy(center))
    torch.testing.assert_close(encoded.statistics.scale, torch.from_numpy(spread))
    expected = interpolate(torch.from_numpy((y - center) / spread), ~history.isnan())
    torch.testing.assert_close(encoded.features[..., 0], expected)


@pytest.mark.parametrize("marked", [False, True])
def test_missing_values_of_all_inputs_are_masked(marked: bool) -> None:
    """The forecast is finite, and so are its gradients; a mark tells a value from a missing one."""
    names = ["y", "price", "noise", "y_lagged_by_4"] if marked else []
    dataset = make_dataset(**COVARIATES)
    model = make_model(dataset, missing_values=names, amplitudes=True)
    x, y = collate(pick_samples(dataset))
    complete = forecast(model, x)[0]
    hidden = hide(x, (0, 1), (1, 0), (2, 2))
    for key in ("encoder_cont", "decoder_cont"):
        hidden[key] = x[key].clone()
    columns = [dataset.reals.index(name) for name in ("price", "noise", "y_lagged_by_4")]
    hidden["encoder_cont"][0, 1:3, columns] = torch.nan
    ahead = columns[::2] if marked else columns[2:]  # an unmarked covariate may not be missing
    hidden["decoder_cont"][1, :2, ahead] = torch.nan
    prediction = model(hidden).prediction
    assert prediction.isfinite().all()
    assert not torch.allclose(prediction[:3], complete[:3])
    assert torch.equal(prediction[3:], complete[3:])  # of samples with all values
    (prediction - y[0][..., None]).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    model.zero_grad()


def test_mark_tells_a_missing_value_from_an_interpolated_one() -> None:
    dataset = make_dataset()
    x, _ = collate(pick_samples(dataset))
    hidden = hide(x, (0, 2))
    line = {
        **x,
        "encoder_target": interpolate(x["encoder_target"], ~hidden["encoder_target"].isnan()),
    }
    for names, same in (([], True), (["y"], False)):
        model = make_model(dataset, missing_values=names, instance_normalization=False)
        assert torch.allclose(forecast(model, hidden)[0], forecast(model, line)[0]) is same


@pytest.mark.parametrize("names", [[], ["y", "price", "noise", "y_lagged_by_4"]])
def test_masking_does_not_change_complete_batches(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it cannot be known that a batch is complete: on an accelerator, or in a graph."""
    dataset = make_dataset(**COVARIATES)
    model = make_model(dataset, missing_values=names)
    x, _ = collate(pick_samples(dataset))
    expected = forecast(model, x)[0]
    monkeypatch.setattr(missing, "_is_known_complete", lambda _: False)
    assert torch.equal(forecast(model, x)[0], expected)


def test_history_of_nothing_but_nan_is_an_empty_one() -> None:
    dataset = make_dataset(min_encoder_length=0)
    model = make_model(dataset)
    x, _ = collate(pick_samples(dataset))
    unknown = {**x, "encoder_target": torch.full_like(x["encoder_target"], torch.nan)}
    prediction, scale = forecast(model, unknown)[0], x["target_scale"]
    assert prediction.isfinite().all()
    inputs = network_inputs(unknown, model.reference_scales(unknown))
    with torch.no_grad():
        (part,) = model.network(inputs)
    assert torch.equal(part.target_scale, scale)  # those of the series


def test_from_dataset_marks_what_is_missing() -> None:
    table = make_table()
    table.loc[table.index % 5 == 0, "y"] = np.nan
    table.loc[table.index % 7 == 0, "noise"] = np.nan
    arguments = make_dataset(**COVARIATES).get_parameters()
    dataset = BatchedTimeSeriesDataSet.from_parameters(arguments, table)
    model = mLSTMTime.from_dataset(dataset, hidden_size=8, num_heads=2)
    assert sorted(model.hparams.missing_values) == ["noise", "y", "y_lagged_by_4"]
    assert mLSTMTime.from_dataset(make_dataset()).hparams.missing_values == []
    with pytest.raises(ValueError, match=r"^mLSTMTime: missing_values must name .* got \['z'\]"):
        mLSTMTime.from_dataset(dataset, missing_values=["z"])


@pytest.mark.filterwarnings("ignore:`torch.jit.trace`:DeprecationWarning")
def test_traced_graph_looks_for_missing_values() -> None:
    """Though the example that was traced has none."""

    def observe(x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        observed = missing.observed_steps(x, valid)
        assert observed is not None
        return observed, missing.fill_nan(x[..., None], valid)

    x, valid = torch.randn(3, 9), torch.ones(3, 9, dtype=torch.bool)
    traced = torch.jit.trace(observe, (x, valid))
    x[0, 2:5] = torch.nan
    for actual, expected in zip(traced(x, valid), observe(x, valid), strict=True):
        torch.testing.assert_close(actual, expected)


def test_masking_is_one_graph() -> None:
    """No branch depends on the data, as compilers and exporters require."""
    x = torch.randn(3, 9, 2).double()
    x[0, 2:5, 0] = x[1, :4, 1] = x[2, :, 0] = torch.nan
    valid = torch.ones(3, 9, dtype=torch.bool)

    class Fill(torch.nn.Module):
        def forward(self, x: Tensor, valid: Tensor) -> Tensor:
            return missing.fill_nan(x, valid)

    expected = Fill()(x, valid)
    assert expected.isfinite().all()
    batch = torch.export.Dim.DYNAMIC
    exported = torch.export.export(Fill(), (x, valid), dynamic_shapes=({0: batch}, {0: batch}))
    torch.testing.assert_close(exported.module()(x, valid), expected)
    complete = torch.randn(5, 9, 2).double()
    ones = torch.ones(5, 9, dtype=torch.bool)
    assert torch.equal(exported.module()(complete, ones), complete)
