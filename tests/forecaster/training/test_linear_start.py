"""An untrained model forecasts linearly, and its linear maps learn slowly."""

from typing import Any

import numpy as np
import pytest
import torch
from lightning import pytorch as pl
from torch import Tensor

from helpers.forecasters import fit_settings, panel_of_values, rich_stores, tiny
from helpers.tables import noisy_season
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.forecaster.panel.windows import cut_last_windows
from pytorch_forecasting_mlstm.forecaster.training.datasets import training_set
from pytorch_forecasting_mlstm.forecaster.training.fitting import _Fit
from pytorch_forecasting_mlstm.forecaster.training.linear_start import optimizer_of
from pytorch_forecasting_mlstm.forecaster.training.prediction import predict_future
from pytorch_forecasting_mlstm.forecaster.training.recipe import Recipe
from pytorch_forecasting_mlstm.forecaster.training.ridge import LinearStart
from pytorch_forecasting_mlstm.forecaster.training.train import learning_rates, new_model, train

LEVELS = (0.1, 0.5, 0.9)


def make_fit(*values: Any, history: int, horizon: int, **model: Any) -> _Fit:
    recipe = Recipe(
        epochs=2, batches_per_epoch=1, model={"hidden_size": 4, "num_heads": 1, **model}
    )
    settings = fit_settings(horizon=horizon, history=history, minimum=None, recipe=recipe)
    return _Fit(panel_of_values(*values), settings, None)


def make_model(fit: _Fit) -> tuple[mLSTMTime, LinearStart]:
    """Return an untrained model of all rows, and the linear forecast it starts with."""
    history, end = fit.given_history(), fit.split.end
    split = fit.split.with_history(fit.panel, history)
    start = fit.linear_start(history, end)
    assert start is not None
    training = training_set(fit.frame, fit.layout, split, end)
    return new_model(training, fit.settings.recipe, LEVELS, start), start


@torch.no_grad()
def silence_memory(model: mLSTMTime) -> None:
    """Leave the linear maps and the biases: a new memory adds a hundredth at most."""
    model.network.residual_head.weight.zero_()
    if model.network.amplitude_head is not None:
        model.network.amplitude_head.weight.zero_()


def forecast(fit: _Fit, model: mLSTMTime, *, level: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """Forecast the steps after the end from histories that are moved and scaled."""
    history, horizon = fit.given_history(), fit.settings.horizon
    shortest = int(model.dataset_parameters["min_encoder_length"])
    windows = cut_last_windows(fit.panel, history, shortest, horizon)
    frame = fit.layout.frame(windows, fit.scaling, np.arange(len(windows)), history)
    target = fit.layout.target
    frame[target] = level + scale * frame[target]
    return predict_future(model, frame, history, horizon, list(LEVELS))


def continued(history: np.ndarray, start: LinearStart) -> np.ndarray:
    """Return the linear forecast (h, Q) of a history; before a shorter one, there is its mean.

    Missing values read as the line between their neighbors, and do not count for the deviation.
    """
    observed = np.isfinite(history)
    steps = np.arange(len(history))
    center, spread = history[observed].mean(), history[observed].std()
    filled = np.interp(steps, steps[observed], history[observed])
    padded = np.full(len(start.weights), center)
    padded[len(padded) - len(filled) :] = filled
    return (padded @ start.weights)[:, None] + spread * start.offsets


def last_histories(fit: _Fit, history: int) -> list[np.ndarray]:
    values = fit.scaling.scale(fit.scaling.without_effects(fit.panel))
    return [values[fit.panel.series == number][-history:] for number in range(len(fit.panel))]


@pytest.mark.parametrize(
    ("history", "horizon", "options"),
    [
        (7, 3, {}),
        (1, 1, {}),
        (10, 3, {"patch_length": 4}),
        (10, 5, {"patch_length": 4}),
        (12, 6, {"patch_length": 3}),
        (21, 4, {"moving_averages": (9, 3), "amplitudes": True}),
        (70, 2, {}),
    ],
)
def test_untrained_model_forecasts_linearly(
    history: int, horizon: int, options: dict[str, Any]
) -> None:
    """With whole patches and without, and with series of different levels and scales."""
    values = [noisy_season(110), 1e4 - 300 * noisy_season(95, seed=1)]
    fit = make_fit(*values, history=history, horizon=horizon, **options)
    model, start = make_model(fit)
    expected = [continued(part, start) for part in last_histories(fit, history)]
    if history == 1:  # it has no deviation of its own
        expected = [part[:, [1]] for part in expected]
    near = forecast(fit, model)
    silence_memory(model)
    exact = forecast(fit, model)
    if history == 1:
        near, exact = near[..., [1]], exact[..., [1]]
    np.testing.assert_allclose(exact, expected, atol=2e-5)
    np.testing.assert_allclose(near, expected, atol=0.1)
    assert model.network.linear_maps()[0].trend.weight.dtype == torch.float32


@pytest.mark.parametrize("options", [{}, {"patch_length": 4}])
def test_shorter_histories_and_missing_values(options: dict[str, Any]) -> None:
    """A series of five rows among long ones, and gaps within, before and after the history."""
    gaps = noisy_season(80, seed=2)
    gaps[[71, 73, 74, 78]] = np.nan
    ends = noisy_season(70, seed=3)
    ends[[60, 61]] = np.nan
    values = [noisy_season(80), noisy_season(5, seed=1), gaps, ends]
    fit = make_fit(*values, history=10, horizon=3, **options)
    model, start = make_model(fit)
    silence_memory(model)
    histories = last_histories(fit, 10)
    assert [len(part) for part in histories] == [10, 5, 10, 10]
    assert [int(np.isnan(part).sum()) for part in histories] == [0, 0, 4, 2]
    expected = [continued(part, start) for part in histories]
    np.testing.assert_allclose(forecast(fit, model), expected, atol=2e-5)


def test_level_and_scale_of_a_history_do_not_matter() -> None:
    fit = make_fit(noisy_season(80), history=10, horizon=3)
    model, _ = make_model(fit)
    moved = forecast(fit, model, level=40, scale=3)
    np.testing.assert_allclose(moved, 40 + 3 * forecast(fit, model), rtol=1e-5)


def test_maps_of_a_longer_history_read_its_end() -> None:
    """Patches lengthen a history of 10 steps to 12, and the first two weights are 0."""
    fit = make_fit(noisy_season(80), history=10, horizon=3, patch_length=4)
    model, start = make_model(fit)
    (maps,) = model.network.linear_maps()
    for linear in (maps.trend, maps.cycle, maps.season):
        assert linear.weight.shape == (3, 12) and (linear.weight[:, :2] == 0).all()
        np.testing.assert_allclose(linear.weight[:, 2:].detach().T, start.weights, rtol=1e-6)


def test_without_a_start_the_mean_is_forecast() -> None:
    fit = make_fit(noisy_season(80), history=10, horizon=3)
    _, start = make_model(fit)
    split = fit.split.with_history(fit.panel, 10)
    training = training_set(fit.frame, fit.layout, split, fit.split.end)
    model = new_model(training, fit.settings.recipe, LEVELS, None)
    (history,) = last_histories(fit, 10)
    np.testing.assert_allclose(forecast(fit, model)[0], np.full((3, 3), history.mean()), atol=0.1)
    assert np.abs(continued(history, start)[:, 1] - history.mean()).max() > 0.2


def group_settings(optimizer: torch.optim.Optimizer, name: str) -> list[float]:
    return [group[name] for group in optimizer.param_groups]


def test_linear_maps_learn_slowly_and_do_not_decay() -> None:
    fit = make_fit(noisy_season(80), history=10, horizon=3)
    model, _ = make_model(fit)
    optimizer = optimizer_of(model, 1)(
        model.parameters(), lr=0.02, weight_decay=0.3, betas=(0.5, 0.9)
    )
    assert isinstance(optimizer, torch.optim.AdamW)
    np.testing.assert_allclose(group_settings(optimizer, "lr"), [0.02, 0.002])
    assert group_settings(optimizer, "weight_decay") == [0.3, 0.0]
    assert group_settings(optimizer, "betas") == [(0.5, 0.9)] * 2
    others, linear = [{id(p) for p in group["params"]} for group in optimizer.param_groups]
    maps = model.network.linear_maps()[0]
    assert linear == {id(part.weight) for part in (maps.trend, maps.cycle, maps.season)}
    assert not others & linear
    assert others | linear == {id(parameter) for parameter in model.parameters()}
    with torch.no_grad():
        before = [parameter.clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for parameter, old in zip(model.parameters(), before, strict=True):
        rate, decay = (0.002, 0.0) if id(parameter) in linear else (0.02, 0.3)
        expected: Tensor = old * (1 - rate * decay) - rate
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=1e-6)


def test_optimizer_may_be_fused() -> None:
    """Which excludes a step in one call for all tensors."""
    model, _ = make_model(make_fit(noisy_season(80), history=10, horizon=3))
    make = optimizer_of(model, 1)
    for options, foreach in (({}, True), ({"fused": True}, None), ({"foreach": False}, False)):
        optimizer = make(model.parameters(), lr=0.02, weight_decay=0.3, **options)
        assert group_settings(optimizer, "foreach") == [foreach] * 2


@pytest.mark.parametrize("memory_length", [1, 9, 10])
@pytest.mark.parametrize("windows", [500, 250, 25, 1])
def test_maps_that_read_more_than_the_memory_learn_more_slowly_from_few_windows(
    windows: int, memory_length: int
) -> None:
    fit = make_fit(noisy_season(80), history=10, horizon=3, memory_length=memory_length)
    model, _ = make_model(fit)
    optimizer = optimizer_of(model, windows)(model.parameters(), lr=1.0, weight_decay=0.0)
    share = min(0.1, windows / 2500) if memory_length < 10 else 0.1
    np.testing.assert_allclose(group_settings(optimizer, "lr")[1], share)


class Rates(pl.Callback):
    """Record the learning rates of each epoch, and the class of the optimizer."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []
        self.kinds: set[type] = set()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        (optimizer,) = trainer.optimizers
        self.rates.append(group_settings(optimizer, "lr"))
        self.kinds.add(type(optimizer))


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, torch.optim.AdamW),
        ({"optimizer_params": {"betas": (0.8, 0.9)}}, torch.optim.AdamW),
        ({"optimizer": "adam"}, torch.optim.Adam),
        ({"optimizer": "sgd"}, torch.optim.SGD),
        ({"optimizer": torch.optim.RMSprop}, torch.optim.RMSprop),
    ],
)
def test_schedule_holds_for_all_optimizers(options: dict[str, Any], kind: type) -> None:
    """And afterwards the model has its own optimizer again."""
    fit = make_fit(noisy_season(40), history=4, horizon=2, **options)
    split = fit.split.with_history(fit.panel, 4)
    training = training_set(fit.frame, fit.layout, split, fit.split.end)
    rates = Rates()
    recipe = fit.settings.recipe
    start = fit.linear_start(4, fit.split.end)
    result = train(
        training,
        None,
        recipe,
        LEVELS,
        seed=0,
        trainer_kwargs={"callbacks": rates},
        start=start,
    )
    shares = [1, 0.1] if kind is torch.optim.AdamW else [1]
    expected = np.outer(learning_rates(recipe.learning_rate, 2), shares)
    np.testing.assert_allclose(rates.rates, expected)
    assert rates.kinds == {kind}
    assert result.model.optimizer == options.get("optimizer", "adamw")


def test_optimizer_survives_saving_loading_and_updating(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loaded model goes on as the saved one: slowly in the linear maps."""
    forecaster = tiny().fit(rich_stores())
    forecaster.save(tmp_path / "a.ckpt")
    loaded = type(forecaster).load(tmp_path / "a.ckpt")
    rates: list[list[float]] = []
    configure = mLSTMTime.configure_optimizers

    def observe(self: mLSTMTime) -> Any:
        configured = configure(self)
        rates.append(group_settings(configured["optimizer"], "initial_lr"))
        return configured

    monkeypatch.setattr(mLSTMTime, "configure_optimizers", observe)
    for one in (forecaster, loaded):
        assert one.model.optimizer == one.model.hparams.optimizer == "adamw"
        one.update(rich_stores(33), epochs=1)
        assert one.model.optimizer == "adamw"
    np.testing.assert_allclose(rates, [[0.001, 0.0001]] * 2)
