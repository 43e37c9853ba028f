"""Interpretation: the parts add up to the forecast, and read weights match the memory's."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
from pytorch_forecasting import MAE, QuantileLoss, TimeSeriesDataSet
from pytorch_forecasting.utils import to_list

from helpers.compatibility_matrix import LOSSES, Cell
from helpers.datasets import CONFIGURATIONS, HISTORY, HORIZON, QUIET, configured, convert
from helpers.models import make_model, shared_model
from helpers.products import alternate, spread
from helpers.tolerances import assert_close, assert_identical, assert_raises_mentioning
from pytorch_forecasting_mlstm import mLSTMTime


def first_batch(dataset: TimeSeriesDataSet) -> dict[str, Any]:
    x, _ = next(iter(dataset.to_dataloader(train=False, batch_size=5)))
    return convert(x, torch.float64)


@alternate("name", CONFIGURATIONS, every=4)
def test_parts_add_up_to_the_forecast(name: str) -> None:
    assert_parts_add_up(shared_model(name), first_batch(configured(name)))


@spread(
    "name, targets",
    [loss for loss in LOSSES if loss != "CrossEntropy()"],
    ["one", "list of one", "plus a real one, QuantileLoss"],
)
def test_parts_add_up_to_the_forecast_of_every_loss(name: str, targets: str) -> None:
    if name.startswith("MQF2"):
        pytest.importorskip("cpflows")
    loss, dataset = Cell(name, targets=targets).build()
    model = make_model(dataset, loss=loss).eval()
    assert_parts_add_up(model, first_batch(dataset))


def assert_parts_add_up(model: mLSTMTime, x: dict[str, Any]) -> None:
    interpretation = model.interpret_output(x)
    with torch.no_grad():
        assert_identical(
            tuple(to_list(interpretation.prediction)), tuple(to_list(model(x).prediction))
        )
    parts = zip(*map(to_list, interpretation[1:5]), strict=True)
    totals = [trend + cycle + season + memory for trend, cycle, season, memory in parts]
    is_list = isinstance(interpretation.prediction, list)
    rescaled = model.transform_output(totals if is_list else totals[0], interpretation.target_scale)
    for total, prediction in zip(
        to_list(rescaled), to_list(interpretation.prediction), strict=True
    ):
        assert_close(total, prediction)
    # a single step, shifted to mean 0, gives linear maps of 0
    linear = (
        (interpretation.trend, interpretation.cycle, interpretation.season)
        if model.hparams.max_encoder_length > 1
        else ()
    )
    for part in (*linear, interpretation.memory):
        assert all(p.abs().max() > 0 for p in to_list(part))


@alternate("name", CONFIGURATIONS, first=1, every=4)
def test_amplitudes_multiply_trend_cycle_and_season(name: str) -> None:
    dataset = configured(name)
    model = make_model(dataset, amplitudes=True).eval()
    x = first_batch(dataset)
    scaled = model.interpret_output(x)
    with torch.no_grad():
        model.network.amplitude_head.weight.zero_()
        model.network.amplitude_head.bias.zero_()
    unscaled = model.interpret_output(x)
    for number, name in enumerate(("trend", "cycle", "season")):
        for product, component, amplitudes, ones in zip(
            to_list(getattr(scaled, name)),
            to_list(getattr(unscaled, name)),
            to_list(scaled.amplitudes),
            to_list(unscaled.amplitudes),
            strict=True,
        ):
            assert torch.equal(ones, torch.ones_like(ones))
            assert (amplitudes != 1).all() and (amplitudes > 0).all() and (amplitudes < 2).all()
            assert_close(product, component * amplitudes[..., number, None])


def test_amplitudes_of_targets_are_separate() -> None:
    dataset = configured("two targets with weights and lags")
    model = make_model(dataset, amplitudes=True).eval()
    with torch.no_grad():
        model.network.amplitude_head.weight.zero_()
        model.network.amplitude_head.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.5, 1.0, -1.0]))
    first, second = model.interpret_output(first_batch(dataset)).amplitudes
    assert torch.equal(first, torch.ones_like(first))
    expected = 1 + torch.tensor([0.5, 1.0, -1.0], dtype=torch.float64).tanh()
    assert_close(second, expected.expand_as(second))


@pytest.mark.parametrize("patch_length", [1, 3, 4])
def test_read_weights_are_zero_for_steps_that_are_not_read(patch_length: int) -> None:
    """Steps before a short history, and steps of later patches, have no weight."""
    dataset = configured("all lengths")
    model = make_model(dataset, patch_length=patch_length).eval()
    x = first_batch(dataset)
    interpretation = model.interpret_output(x)
    B = len(x["encoder_lengths"])
    assert interpretation.history == HISTORY
    assert interpretation.read_weights.shape == (B, 2, 2, HORIZON, HISTORY + HORIZON)
    for sample, length in enumerate(x["encoder_lengths"].tolist()):
        before = interpretation.read_weights[sample, ..., : HISTORY - length]
        # patches that are partly valid are read
        unread = (HISTORY - length) // patch_length * patch_length - (-HISTORY % patch_length)
        assert not before[..., : max(unread, 0)].any()
        assert (
            interpretation.read_weights[sample, ..., HISTORY - length : HISTORY].any() or not length
        )
    patch = min(patch_length, HORIZON)
    for step in range(HORIZON):
        next_patch = (step // patch + 1) * patch
        assert not interpretation.read_weights[..., step, HISTORY + next_patch :].any()


def test_read_weights_match_the_layer() -> None:
    """Summed over the steps of a patch, they equal mLSTMLayer.read_weights."""
    dataset = configured(next(iter(CONFIGURATIONS)))
    model = make_model(dataset, patch_length=4).eval()
    x = first_batch(dataset)
    calls = []
    hook = model.network.memory.register_forward_hook(
        lambda module, inputs, kwargs, output: calls.append((inputs, kwargs)), with_kwargs=True
    )
    interpretation = model.interpret_output(x)
    hook.remove()
    (((tokens,), kwargs),) = calls
    with torch.no_grad():
        weights, log_f = model.network.memory.read_weights(tokens, **kwargs)
    assert HISTORY == 8 and HORIZON == 4  # two patches of history and one of the horizon
    by_patch = interpretation.read_weights[..., 0, :].unflatten(-1, (3, 4)).sum(-1)
    assert_close(by_patch, weights[:, :, :, -1].transpose(0, 1))
    full = x["encoder_lengths"] == HISTORY
    expected = 12 / -log_f.sum(-1).transpose(0, 1)
    assert full.any()
    assert_close(interpretation.time_scales[full], expected[full])


def test_interpret_output_does_not_change_the_model() -> None:
    dataset = configured(next(iter(CONFIGURATIONS)))
    model = make_model(dataset, dropout=0.5).train()
    x = first_batch(dataset)
    first, second = model.interpret_output(x), model.interpret_output(x)
    assert_identical(first.read_weights, second.read_weights)  # no dropout
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert not first.read_weights.requires_grad


@pytest.mark.parametrize("loss", [MAE(), QuantileLoss([0.1, 0.5, 0.9])], ids=["point", "quantiles"])
def test_plot_interpretation_shows_parts_weights_and_time_scales(loss: Any) -> None:
    dataset = configured(next(iter(CONFIGURATIONS)))
    model = mLSTMTime.from_dataset(dataset, hidden_size=8, num_layers=2, loss=loss).double()
    interpretation = model.interpret_output(first_batch(dataset))
    figure = model.plot_interpretation(interpretation, idx=1)
    parts, weights, scales, *_ = figure.axes
    lines = {line.get_label(): line.get_ydata() for line in parts.get_lines()}
    middle = interpretation.prediction.shape[-1] // 2
    total = (
        interpretation.trend + interpretation.cycle + interpretation.season + interpretation.memory
    )
    assert list(lines["forecast"]) == pytest.approx(total[1, :, middle].tolist())
    for part in ("trend", "cycle", "season"):
        expected_part = getattr(interpretation, part)[1, :, middle]
        assert list(lines[part]) == pytest.approx(expected_part.tolist())
    assert list(lines["memory"]) == pytest.approx(interpretation.memory[1, :, middle].tolist())
    (image,) = weights.get_images()
    expected = interpretation.read_weights[1, -1].mean(0)
    assert torch.allclose(torch.as_tensor(image.get_array().data).to(expected.dtype), expected)
    assert list(scales.get_lines()[0].get_ydata()) == pytest.approx(
        interpretation.time_scales[1, 0].tolist()
    )
    figure.draw_without_rendering()
    legend = parts.get_legend().get_window_extent()
    assert all(line.get_window_extent().y1 <= legend.y0 for line in parts.get_lines())
    ticks = zip(scales.get_yticks(), scales.get_yticklabels(), strict=True)
    low, high = scales.get_ylim()
    labels = [label.get_text() for value, label in ticks if low <= value <= high]
    assert labels and all(float(label) > 0 for label in labels)  # plain numbers, no powers of ten
    plt.close(figure)
    assert_raises_mentioning(lambda: model.plot_interpretation(interpretation, idx=99), "idx", "99")
    assert_raises_mentioning(
        lambda: model.plot_interpretation(interpretation, target=1), "target", "1"
    )


@pytest.mark.parametrize(
    ("argument", "options", "got"),
    [
        ("x", {"reduction": "sum"}, "got dict, reduction='sum'"),
        ("output", {}, "got Output"),
        ("output", {"reduction": "sum", "attention_prediction_horizon": 0}, "got Output, red"),
    ],
)
def test_interpret_output_explains_how_it_differs_from_other_models(
    argument: str, options: dict[str, Any], got: str
) -> None:
    """The transformer of pytorch-forecasting takes its output and a reduction."""
    model = shared_model("no covariates")
    dataset = configured("no covariates")
    raw = model.predict(dataset, mode="raw", return_x=True, trainer_kwargs={**QUIET})
    with pytest.raises(TypeError, match=f"^mLSTMTime.interpret_output: takes .* {got}.* reduce"):
        model.interpret_output(getattr(raw, argument), **options)
