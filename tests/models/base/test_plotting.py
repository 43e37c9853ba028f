"""Plots of predictions."""

from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from pytorch_forecasting.metrics import MASE, QuantileLoss
from pytorch_forecasting.utils import to_list

from helpers.datasets import (
    collate,
    configured,
    pick_samples,
)
from helpers.models import SMALL
from pytorch_forecasting_mlstm import mLSTMTime


@pytest.mark.filterwarnings("ignore:.c. argument looks like:UserWarning")  # a horizon of one step
@pytest.mark.parametrize("name", ["all lengths", "mixed targets", "categorical target"])
def test_plot_prediction_of_every_sample(name: str) -> None:
    dataset = configured(name)
    model = mLSTMTime.from_dataset(dataset, **SMALL).eval()
    x, _ = collate(pick_samples(dataset), torch.float32)
    out = model(x)
    for row in range(len(x["encoder_lengths"])):
        figures = to_list(model.plot_prediction(x, out, idx=row))
        assert all(isinstance(figure, Figure) for figure in figures)
        assert len(figures) == len(dataset.target_names)


def test_plot_prediction_has_a_figure_for_each_target() -> None:
    """pytorch-forecasting draws all targets in one figure, and returns it once per target."""
    dataset = configured("two targets")
    model = mLSTMTime.from_dataset(dataset, loss=QuantileLoss([0.1, 0.5, 0.9]), **SMALL).eval()
    loss = model.loss
    x, _ = collate(pick_samples(dataset), torch.float32)
    out = model(x)
    first, second = model.plot_prediction(x, out, idx=1, add_loss_to_title=True)
    assert first is not second
    assert [figure.axes[0].get_ylabel() for figure in (first, second)] == ["y", "signed"]
    for number, figure in enumerate((first, second)):
        drawn = next(line for line in figure.axes[0].lines if line.get_label() == "predicted")
        expected = model.to_prediction(out)[number][1].detach()
        assert torch.allclose(torch.as_tensor(drawn.get_ydata()).float(), expected)
    assert model.loss is loss
    figure = Figure()
    axes = figure.subplots(2)
    assert model.plot_prediction(x, out, ax=list(axes)) == [figure, figure]
    with pytest.raises(ValueError, match=r"ax must be a list of axes.*\['y', 'signed'\], got 1"):
        model.plot_prediction(x, out, ax=axes[0])


def test_plot_prediction_takes_positional_arguments() -> None:
    """In the order of the method of pytorch-forecasting."""
    for name in ("no covariates", "two targets"):
        dataset = configured(name)
        model = mLSTMTime.from_dataset(dataset, **SMALL).eval()
        x, _ = collate(pick_samples(dataset), torch.float32)
        figure = Figure()
        axes = list(figure.subplots(len(dataset.target_names), squeeze=False).ravel())
        ax = axes if len(axes) > 1 else axes[0]
        figures = to_list(model.plot_prediction(x, model(x), 1, True, False, ax))
        assert figures == [figure] * len(axes)
        assert all("Loss" in panel.get_title() for panel in axes)


@pytest.mark.parametrize("name", ["two targets", "categorical target"])
def test_averages_by_variable_of_classes_or_several_targets_are_rejected(name: str) -> None:
    dataset = configured(name)
    model = mLSTMTime.from_dataset(dataset, **SMALL).eval()
    x, _ = collate(pick_samples(dataset), torch.float32)
    with pytest.raises(ValueError, match="mLSTMTime: averages by variable"):
        model.calculate_prediction_actual_by_variable(x, model.to_prediction(model(x)))


def test_averages_by_variable_are_plotted() -> None:
    dataset = configured("all covariates")
    model = mLSTMTime.from_dataset(dataset, **SMALL).eval()
    x, _ = collate(pick_samples(dataset), torch.float32)
    averages = model.calculate_prediction_actual_by_variable(
        x, model.to_prediction(model(x)).detach()
    )
    figures = model.plot_prediction_actual_by_variable(averages)
    assert {"price", "region"} <= figures.keys()
    assert all(isinstance(figure, Figure) for figure in figures.values())


@pytest.mark.parametrize("loss", [QuantileLoss([0.1, 0.5, 0.9]), MASE()])
def test_plots_skip_missing_values(loss: Any) -> None:
    dataset = configured("known real")
    model = mLSTMTime.from_dataset(dataset, loss=loss, **SMALL).eval()
    x, _ = collate(pick_samples(dataset), torch.float32)
    x["encoder_target"][1, 3] = x["decoder_target"][1, 2] = torch.nan
    figure = model.plot_prediction(x, model(x), idx=1, add_loss_to_title=True)
    value = figure.axes[0].get_title().removeprefix("Loss ")
    assert 0 < float(value.removeprefix("tensor(").split(",")[0].rstrip(")")) < 100
    with pytest.raises(ValueError, match="^mLSTMTime: averages by variable need all values"):
        model.calculate_prediction_actual_by_variable(x, model.to_prediction(model(x)))
