"""Looking inside a forecast: the parts sum up, the read weights are those of the memory."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
from pytorch_forecasting import MAE, QuantileLoss, TimeSeriesDataSet
from pytorch_forecasting.utils import to_list

from helpers.compatibility_matrix import LOSSES, Cell
from helpers.datasets import CONFIGURATIONS, HISTORY, HORIZON, configured, convert
from helpers.models import every_configuration, make_model
from helpers.tolerances import assert_close, assert_complains, assert_identical
from pytorch_forecasting_mlstm import mLSTMTime


def batch_of(dataset: TimeSeriesDataSet) -> dict[str, Any]:
    x, _ = next(iter(dataset.to_dataloader(train=False, batch_size=5)))
    return convert(x, torch.float64)


@every_configuration
def test_parts_sum_to_the_forecast(name: str) -> None:
    dataset = configured(name)
    assert_parts_sum_up(make_model(dataset).eval(), batch_of(dataset))


@pytest.mark.parametrize("targets", ["one", "list of one", "and a real one with quantiles"])
@pytest.mark.parametrize("name", [loss for loss in LOSSES if loss != "CrossEntropy()"])
def test_parts_sum_to_the_forecast_of_every_loss(name: str, targets: str) -> None:
    if name.startswith("MQF2"):
        pytest.importorskip("cpflows")
    loss, dataset = Cell(name, targets=targets).build()
    model = make_model(dataset, loss=loss).eval()
    assert_parts_sum_up(model, batch_of(dataset))


def assert_parts_sum_up(model: mLSTMTime, x: dict[str, Any]) -> None:
    found = model.interpret_output(x)
    with torch.no_grad():
        assert_identical(tuple(to_list(found.prediction)), tuple(to_list(model(x).prediction)))
    parts = zip(*map(to_list, found[1:5]), strict=True)
    total = [trend + cycle + season + memory for trend, cycle, season, memory in parts]
    several = isinstance(found.prediction, list)
    again = model.transform_output(total if several else total[0], found.target_scale)
    for one, other in zip(to_list(again), to_list(found.prediction), strict=True):
        assert_close(one, other)
    # of a single step, brought to mean 0, nothing is left to the linear paths
    linear = (
        (found.trend, found.cycle, found.season) if model.hparams.max_encoder_length > 1 else ()
    )
    for part in (*linear, found.memory):
        assert all(p.abs().max() > 0 for p in to_list(part))


@every_configuration
def test_linear_parts_are_the_paths_times_their_amplitudes(name: str) -> None:
    dataset = configured(name)
    model = make_model(dataset, amplitudes=True).eval()
    x = batch_of(dataset)
    scaled = model.interpret_output(x)
    with torch.no_grad():
        model.network.amplitude_head.weight.zero_()
        model.network.amplitude_head.bias.zero_()
    plain = model.interpret_output(x)
    for number, part in enumerate(("trend", "cycle", "season")):
        for one, other, amplitudes, unit in zip(
            to_list(getattr(scaled, part)),
            to_list(getattr(plain, part)),
            to_list(scaled.amplitudes),
            to_list(plain.amplitudes),
            strict=True,
        ):
            assert torch.equal(unit, torch.ones_like(unit))
            assert (amplitudes != 1).all() and (amplitudes > 0).all() and (amplitudes < 2).all()
            assert_close(one, other * amplitudes[..., number, None])


def test_every_target_has_amplitudes_of_its_own() -> None:
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
def test_weights_name_the_steps_that_the_memory_reads(patch_length: int) -> None:
    """A step that the tokens cannot see changes nothing; one that they can changes its column."""
    dataset = configured("all lengths")
    model = make_model(dataset, patch_length=patch_length).eval()
    x = batch_of(dataset)
    found = model.interpret_output(x)
    B = len(x["encoder_lengths"])
    assert found.history == HISTORY
    assert found.read_weights.shape == (B, 2, 2, HORIZON, HISTORY + HORIZON)
    for sample, length in enumerate(x["encoder_lengths"].tolist()):
        before = found.read_weights[sample, ..., : HISTORY - length]
        # a patch that is valid in part is read as a whole
        whole = (HISTORY - length) // patch_length * patch_length - (-HISTORY % patch_length)
        assert not before[..., : max(whole, 0)].any()
        assert found.read_weights[sample, ..., HISTORY - length : HISTORY].any() or not length
    future = min(patch_length, HORIZON)
    for step in range(HORIZON):
        later = (step // future + 1) * future
        assert not found.read_weights[..., step, HISTORY + later :].any()


def test_weights_of_the_model_are_the_layers_own() -> None:
    """Summed over the steps of a patch they are what mLSTMLayer.read_weights gives."""
    dataset = configured(next(iter(CONFIGURATIONS)))
    model = make_model(dataset, patch_length=4).eval()
    x = batch_of(dataset)
    kept = []
    hook = model.network.memory.register_forward_hook(
        lambda module, inputs, kwargs, output: kept.append((inputs, kwargs)), with_kwargs=True
    )
    found = model.interpret_output(x)
    hook.remove()
    ((tokens,), kwargs), *_ = kept
    with torch.no_grad():
        weights, log_f = model.network.memory.read_weights(tokens, **kwargs)
    assert HISTORY == 8 and HORIZON == 4  # two patches, and one
    by_patch = found.read_weights[..., 0, :].unflatten(-1, (3, 4)).sum(-1)
    assert_close(by_patch, weights[:, :, :, -1].transpose(0, 1))
    full = x["encoder_lengths"] == HISTORY
    expected = 12 / -log_f.sum(-1).transpose(0, 1)
    assert full.any()
    assert_close(found.time_scales[full], expected[full])


def test_looking_changes_nothing() -> None:
    dataset = configured(next(iter(CONFIGURATIONS)))
    model = make_model(dataset, dropout=0.5).train()
    x = batch_of(dataset)
    first, second = model.interpret_output(x), model.interpret_output(x)
    assert_identical(first.read_weights, second.read_weights)  # no dropout
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert not first.read_weights.requires_grad


@pytest.mark.parametrize("loss", [MAE(), QuantileLoss([0.1, 0.5, 0.9])], ids=["point", "quantiles"])
def test_plot_shows_parts_weights_and_time_scales(loss: Any) -> None:
    dataset = configured(next(iter(CONFIGURATIONS)))
    model = mLSTMTime.from_dataset(dataset, hidden_size=8, num_layers=2, loss=loss).double()
    found = model.interpret_output(batch_of(dataset))
    figure = model.plot_interpretation(found, idx=1)
    parts, weights, scales, *_ = figure.axes
    drawn = {line.get_label(): line.get_ydata() for line in parts.get_lines()}
    middle = found.prediction.shape[-1] // 2
    total = found.trend + found.cycle + found.season + found.memory
    assert list(drawn["forecast"]) == pytest.approx(total[1, :, middle].tolist())
    for part in ("trend", "cycle", "season"):
        expected_part = getattr(found, part)[1, :, middle]
        assert list(drawn[part]) == pytest.approx(expected_part.tolist())
    assert list(drawn["memory"]) == pytest.approx(found.memory[1, :, middle].tolist())
    (image,) = weights.get_images()
    expected = found.read_weights[1, -1].mean(0)
    assert torch.allclose(torch.as_tensor(image.get_array().data).to(expected.dtype), expected)
    assert list(scales.get_lines()[0].get_ydata()) == pytest.approx(
        found.time_scales[1, 0].tolist()
    )
    figure.draw_without_rendering()
    legend = parts.get_legend().get_window_extent()
    assert all(line.get_window_extent().y1 <= legend.y0 for line in parts.get_lines())
    ticks = zip(scales.get_yticks(), scales.get_yticklabels(), strict=True)
    low, high = scales.get_ylim()
    shown = [label.get_text() for value, label in ticks if low <= value <= high]
    assert shown and all(float(label) > 0 for label in shown)  # plain numbers, no powers of ten
    plt.close(figure)
    assert_complains(lambda: model.plot_interpretation(found, idx=99), "idx", "99")
    assert_complains(lambda: model.plot_interpretation(found, target=1), "target", "1")
