"""Interpretation: the parts add up to the forecast, read weights are those of the memory."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
from pytorch_forecasting import MAE, QuantileLoss, TimeSeriesDataSet
from pytorch_forecasting.utils import to_list

from helpers.compatibility_matrix import LOSSES, Cell
from helpers.datasets import CONFIGURATIONS, HISTORY, HORIZON, configured, convert
from helpers.models import make_model, parametrize_configurations, shared_model
from helpers.tolerances import assert_close, assert_identical, assert_raises_mentioning
from pytorch_forecasting_mlstm import mLSTMTime


def batch_of(dataset: TimeSeriesDataSet) -> dict[str, Any]:
    x, _ = next(iter(dataset.to_dataloader(train=False, batch_size=5)))
    return convert(x, torch.float64)


@parametrize_configurations
def test_parts_add_up_to_the_forecast(name: str) -> None:
    assert_parts_add_up(shared_model(name), batch_of(configured(name)))


@pytest.mark.parametrize("targets", ["one", "list of one", "and a real one with quantiles"])
@pytest.mark.parametrize("name", [loss for loss in LOSSES if loss != "CrossEntropy()"])
def test_parts_add_up_to_the_forecast_of_every_loss(name: str, targets: str) -> None:
    if name.startswith("MQF2"):
        pytest.importorskip("cpflows")
    loss, dataset = Cell(name, targets=targets).build()
    model = make_model(dataset, loss=loss).eval()
    assert_parts_add_up(model, batch_of(dataset))


def assert_parts_add_up(model: mLSTMTime, x: dict[str, Any]) -> None:
    inside = model.interpret_output(x)
    with torch.no_grad():
        assert_identical(tuple(to_list(inside.prediction)), tuple(to_list(model(x).prediction)))
    parts = zip(*map(to_list, inside[1:5]), strict=True)
    totals = [trend + cycle + season + memory for trend, cycle, season, memory in parts]
    several = isinstance(inside.prediction, list)
    rescaled = model.transform_output(totals if several else totals[0], inside.target_scale)
    for total, prediction in zip(to_list(rescaled), to_list(inside.prediction), strict=True):
        assert_close(total, prediction)
    # a single step, shifted to mean 0, leaves nothing to the linear maps
    linear = (
        (inside.trend, inside.cycle, inside.season) if model.hparams.max_encoder_length > 1 else ()
    )
    for part in (*linear, inside.memory):
        assert all(p.abs().max() > 0 for p in to_list(part))


@parametrize_configurations
def test_amplitudes_multiply_trend_cycle_and_season(name: str) -> None:
    dataset = configured(name)
    model = make_model(dataset, amplitudes=True).eval()
    x = batch_of(dataset)
    scaled = model.interpret_output(x)
    with torch.no_grad():
        model.network.amplitude_head.weight.zero_()
        model.network.amplitude_head.bias.zero_()
    plain = model.interpret_output(x)
    for number, part in enumerate(("trend", "cycle", "season")):
        for product, factor, amplitudes, unit in zip(
            to_list(getattr(scaled, part)),
            to_list(getattr(plain, part)),
            to_list(scaled.amplitudes),
            to_list(plain.amplitudes),
            strict=True,
        ):
            assert torch.equal(unit, torch.ones_like(unit))
            assert (amplitudes != 1).all() and (amplitudes > 0).all() and (amplitudes < 2).all()
            assert_close(product, factor * amplitudes[..., number, None])


def test_amplitudes_of_targets_are_separate() -> None:
    dataset = configured("two targets with weights and lags")
    model = make_model(dataset, amplitudes=True).eval()
    with torch.no_grad():
        model.network.amplitude_head.weight.zero_()
        model.network.amplitude_head.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.5, 1.0, -1.0]))
    first, second = model.interpret_output(batch_of(dataset)).amplitudes
    assert torch.equal(first, torch.ones_like(first))
    expected = 1 + torch.tensor([0.5, 1.0, -1.0], dtype=torch.float64).tanh()
    assert_close(second, expected.expand_as(second))


@pytest.mark.parametrize("patch_length", [1, 3, 4])
def test_read_weights_are_zero_for_steps_that_are_not_read(patch_length: int) -> None:
    """Steps before a short history, and steps of later patches, have no weight."""
    dataset = configured("all lengths")
    model = make_model(dataset, patch_length=patch_length).eval()
    x = batch_of(dataset)
    inside = model.interpret_output(x)
    B = len(x["encoder_lengths"])
    assert inside.history == HISTORY
    assert inside.read_weights.shape == (B, 2, 2, HORIZON, HISTORY + HORIZON)
    for sample, length in enumerate(x["encoder_lengths"].tolist()):
        before = inside.read_weights[sample, ..., : HISTORY - length]
        # a partly valid patch is read as a whole
        whole = (HISTORY - length) // patch_length * patch_length - (-HISTORY % patch_length)
        assert not before[..., : max(whole, 0)].any()
        assert inside.read_weights[sample, ..., HISTORY - length : HISTORY].any() or not length
    future = min(patch_length, HORIZON)
    for step in range(HORIZON):
        later = (step // future + 1) * future
        assert not inside.read_weights[..., step, HISTORY + later :].any()


def test_read_weights_are_those_of_the_layer() -> None:
    """Summed over the steps of a patch, they are those of mLSTMLayer.read_weights."""
    dataset = configured(next(iter(CONFIGURATIONS)))
    model = make_model(dataset, patch_length=4).eval()
    x = batch_of(dataset)
    calls = []
    hook = model.network.memory.register_forward_hook(
        lambda module, inputs, kwargs, output: calls.append((inputs, kwargs)), with_kwargs=True
    )
    inside = model.interpret_output(x)
    hook.remove()
    (((tokens,), kwargs),) = calls
    with torch.no_grad():
        weights, log_f = model.network.memory.read_weights(tokens, **kwargs)
    assert HISTORY == 8 and HORIZON == 4  # two patches, and one
    by_patch = inside.read_weights[..., 0, :].unflatten(-1, (3, 4)).sum(-1)
    assert_close(by_patch, weights[:, :, :, -1].transpose(0, 1))
    full = x["encoder_lengths"] == HISTORY
    expected = 12 / -log_f.sum(-1).transpose(0, 1)
    assert full.any()
    assert_close(inside.time_scales[full], expected[full])


def test_interpret_output_leaves_the_model_alone() -> None:
    dataset = configured(next(iter(CONFIGURATIONS)))
    model = make_model(dataset, dropout=0.5).train()
    x = batch_of(dataset)
    first, second = model.interpret_output(x), model.interpret_output(x)
    assert_identical(first.read_weights, second.read_weights)  # no dropout
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert not first.read_weights.requires_grad


@pytest.mark.parametrize("loss", [MAE(), QuantileLoss([0.1, 0.5, 0.9])], ids=["point", "quantiles"])
def test_plot_interpretation_shows_parts_weights_and_time_scales(loss: Any) -> None:
    dataset = configured(next(iter(CONFIGURATIONS)))
    model = mLSTMTime.from_dataset(dataset, hidden_size=8, num_layers=2, loss=loss).double()
    inside = model.interpret_output(batch_of(dataset))
    figure = model.plot_interpretation(inside, idx=1)
    parts, weights, scales, *_ = figure.axes
    drawn = {line.get_label(): line.get_ydata() for line in parts.get_lines()}
    middle = inside.prediction.shape[-1] // 2
    total = inside.trend + inside.cycle + inside.season + inside.memory
    assert list(drawn["forecast"]) == pytest.approx(total[1, :, middle].tolist())
    for part in ("trend", "cycle", "season"):
        expected_part = getattr(inside, part)[1, :, middle]
        assert list(drawn[part]) == pytest.approx(expected_part.tolist())
    assert list(drawn["memory"]) == pytest.approx(inside.memory[1, :, middle].tolist())
    (image,) = weights.get_images()
    expected = inside.read_weights[1, -1].mean(0)
    assert torch.allclose(torch.as_tensor(image.get_array().data).to(expected.dtype), expected)
    assert list(scales.get_lines()[0].get_ydata()) == pytest.approx(
        inside.time_scales[1, 0].tolist()
    )
    figure.draw_without_rendering()
    legend = parts.get_legend().get_window_extent()
    assert all(line.get_window_extent().y1 <= legend.y0 for line in parts.get_lines())
    ticks = zip(scales.get_yticks(), scales.get_yticklabels(), strict=True)
    low, high = scales.get_ylim()
    shown = [label.get_text() for value, label in ticks if low <= value <= high]
    assert shown and all(float(label) > 0 for label in shown)  # plain numbers, no powers of ten
    plt.close(figure)
    assert_raises_mentioning(lambda: model.plot_interpretation(inside, idx=99), "idx", "99")
    assert_raises_mentioning(lambda: model.plot_interpretation(inside, target=1), "target", "1")
