"""Inference leaves no trace in a model, and any number of threads may share one."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_forecasting.metrics import MAE, MultiLoss, NormalDistributionLoss, QuantileLoss
from torch import nn

from helpers.checkpoints import save
from helpers.cpp_kernel import needs_compiler
from helpers.datasets import CONFIGURATIONS, QUIET, fit, make_dataset, make_table
from helpers.models import SMALL
from pytorch_forecasting_mlstm import mLSTMCell, mLSTMLayer, mLSTMTime, use_kernel
from pytorch_forecasting_mlstm.models.base.inference import inference_view

THREADS, CALLS = 4, 8


def modes(model: nn.Module) -> list[bool]:
    return [part.training for part in model.modules()]


def loss_state(model: mLSTMTime) -> list[str]:
    names = ("losses", "lengths", "_update_count", "_computed")
    return [f"{name}={getattr(model.loss, name, None)}" for name in names]


def make_model(**changes: Any) -> mLSTMTime:
    return mLSTMTime.from_dataset(make_dataset(), **{**SMALL, "dropout": 0.5, **changes})


def test_view_shares_tensors_and_nothing_else() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2)).train()
    model.append(model[1])  # twice in the model, and twice in the view
    view = inference_view(model)
    assert modes(view) == [False] * 4
    assert modes(model) == [True] * 4
    assert view[1] is view[3]
    assert [x.data_ptr() for x in view.state_dict().values()] == [
        x.data_ptr() for x in model.state_dict().values()
    ]
    own = inference_view(model, own_parameters=True)
    assert own[0].weight is not model[0].weight and own[1] is own[3]
    assert own[0].weight.data_ptr() == model[0].weight.data_ptr()
    assert own.double()[0].weight.dtype == torch.float64
    assert model[0].weight.dtype == torch.float32
    view.register_buffer("extra", torch.zeros(1))
    view[0] = nn.Identity()
    assert not hasattr(model, "extra") and isinstance(model[0], nn.Linear)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        "forecast",
        "forecast with a trainer",
        "predict",
        "horizon",
        "interpret_output",
        "plot_prediction",
    ],
)
def test_inference_leaves_no_trace(name: str, training: bool) -> None:
    table, model = make_table(), make_model()
    calls: dict[str, Callable[[], Any]] = {
        "forecast": lambda: model.forecast(table),
        "forecast with a trainer": lambda: model.forecast(table, trainer_kwargs=QUIET),
        "predict": lambda: model.predict(make_dataset(), trainer_kwargs={**QUIET}),
        "horizon": lambda: model.forecast(table, horizon=9),
        "interpret_output": lambda: model.interpret_output(x),
        "plot_prediction": lambda: model.plot_prediction(x, out, add_loss_to_title=True),
    }
    x, _ = next(iter(make_dataset().to_dataloader(train=False, batch_size=2)))
    out = inference_view(model)(x)
    model.train(training)
    model.network.memory.eval()  # a mode of its own
    model.network.residual_head.requires_grad_(False)
    model.network.residual_head.bias.grad = torch.ones_like(model.network.residual_head.bias)
    before = modes(model), [p.requires_grad for p in model.parameters()], set(vars(model))
    state, gradient = loss_state(model), model.network.residual_head.bias.grad.clone()
    random = torch.get_rng_state()
    assert torch.is_grad_enabled()
    calls[name]()
    assert torch.is_grad_enabled()
    assert (modes(model), [p.requires_grad for p in model.parameters()], set(vars(model))) == before
    assert model._trainer is None
    assert loss_state(model) == state
    assert torch.equal(model.network.residual_head.bias.grad, gradient)
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("state", ["fresh", "fitted", "loaded"])
def test_threads_share_a_model(state: str, tmp_path: Any) -> None:
    table, dataset = make_table(), make_dataset()
    model = make_model(loss=QuantileLoss([0.1, 0.5, 0.9]))
    if state == "fitted":
        fit(model, dataset)
    if state == "loaded":
        model = mLSTMTime.load_from_checkpoint(save(model, tmp_path / "model.ckpt"))
    model.train()
    expected_table = model.forecast(table)
    expected = model.predict(dataset, mode="quantiles", trainer_kwargs={**QUIET})

    def call(number: int) -> None:
        if number % 2:
            pd.testing.assert_frame_equal(model.forecast(table), expected_table)
        else:
            actual = model.predict(dataset, mode="quantiles", trainer_kwargs={**QUIET})
            assert torch.equal(actual, expected)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(call, range(CALLS)))
    assert all(modes(model))


@pytest.mark.parametrize("loss", [QuantileLoss([0.1, 0.5, 0.9]), NormalDistributionLoss()])
def test_forecast_equals_that_of_a_trainer(loss: Any) -> None:
    table, model = make_table(), make_model(loss=loss)
    actual = model.forecast(table, batch_size=2)
    expected = model.forecast(table, batch_size=2, trainer_kwargs=QUIET)
    pd.testing.assert_frame_equal(actual, expected)


def test_threads_mix_all_kinds_of_inference() -> None:
    """A plot of one of several targets needs the loss of that target, which others must not see."""
    loss = MultiLoss([QuantileLoss([0.1, 0.5, 0.9]), MAE()])
    dataset = make_dataset(**CONFIGURATIONS["two targets"])
    model = mLSTMTime.from_dataset(dataset, **SMALL, dropout=0.5, loss=loss)
    x, _ = next(iter(dataset.to_dataloader(train=False, batch_size=4)))
    table = make_table()

    def plot() -> list[list[float]]:
        figures = model.plot_prediction(x, inference_view(model)(x), add_loss_to_title=True)
        lines = [line.get_ydata() for figure in figures for line in figure.axes[0].lines]
        return [[float(value) for value in line] for line in lines]

    calls: list[Callable[[], Any]] = [
        plot,
        lambda: model.forecast(table).iloc[:, 3:].to_numpy()[:, 1:].astype(float).tolist(),
        lambda: [part.tolist() for part in model.interpret_output(x).prediction],
        lambda: [part.tolist() for part in model.predict(dataset, trainer_kwargs={**QUIET})],
    ]
    expected = [call() for call in calls]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: calls[number % 4](), range(16)))
    for number, result in enumerate(results):
        for one, other in zip(result, expected[number % 4], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.usefixtures("temporary_cache")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kernel", [False, pytest.param(True, marks=needs_compiler)])
def test_threads_share_layers(kernel: bool, training: bool) -> None:
    """Also with gradients, which each thread asks for its own input."""
    sizes: dict[str, Any] = {"num_heads": 2, "dropout": 0.0}
    layer, cell = mLSTMLayer(5, 16, **sizes), mLSTMCell(5, 16, **sizes)
    layer.train(training)
    cell.train(training)
    inputs = [torch.randn(3, 20 + number, 5, requires_grad=True) for number in range(16)]

    def run(x: torch.Tensor) -> list[torch.Tensor]:
        h, state = layer(x)
        (gradient,) = torch.autograd.grad(h.square().sum(), x)
        memory = cell.init_hidden(len(x))
        for step in x.unbind(1)[:3]:
            memory = cell(step, *memory)
        return [gradient, *(part.detach() for part in (h, *state, *memory))]

    use_kernel(kernel)
    try:
        expected = [run(x) for x in inputs]
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(run, inputs * 2))
    finally:
        use_kernel(False)
    for one, other in zip(results, expected * 2, strict=True):
        for actual, wanted in zip(one, other, strict=True):
            torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=1e-6)
    assert all(p.grad is None for p in [*layer.parameters(), *cell.parameters()])
