"""Which trainings a fit makes, in which order, and which of their results it keeps."""

import math
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from helpers.forecasters import fit_settings, panel_of_values
from helpers.tables import noisy_season
from pytorch_forecasting_mlstm.forecaster.training import fitting
from pytorch_forecasting_mlstm.forecaster.training.datasets import training_set, validation_set
from pytorch_forecasting_mlstm.forecaster.training.fitting import Fitted, Interrupted, Settings
from pytorch_forecasting_mlstm.forecaster.training.mixing import UNTESTED_SHARE
from pytorch_forecasting_mlstm.forecaster.training.recipe import Recipe
from pytorch_forecasting_mlstm.forecaster.training.ridge import LinearStart
from pytorch_forecasting_mlstm.forecaster.training.seeds import member_seed
from pytorch_forecasting_mlstm.forecaster.training.train import TrainingResult

NAN = math.nan
_BUILT: dict[bytes, Any] = {}


def built_once(build: Any) -> Any:
    """Return what builds datasets, but equal ones once: nothing here is trained."""

    def build_or_find(*arguments: Any) -> Any:
        key = pickle.dumps((build.__name__, arguments))
        if key not in _BUILT:
            _BUILT[key] = build(*arguments)
        return _BUILT[key]

    return build_or_find


class Trainings:
    """Replaces trainings by a table of their losses, and records what would be trained."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, losses: dict[Any, Any]) -> None:
        """Take the loss, or what is raised, of each number of epochs, or of (history, epochs)."""
        self.losses = losses
        self.calls: list[tuple[Any, ...]] = []
        self.seeds: list[int | None] = []
        self.starts: list[Any] = []
        self.rates: list[float] = []
        self.observed: list[bool] = []
        self.interrupted: set[int] = set()

        def train(
            fit: Any,
            name: str,
            training: Any,
            validation: Any,
            recipe: Recipe,
            trainer_kwargs: Any,
            *,
            start: Any = None,
            seed: int | None = None,
        ) -> TrainingResult:
            history, epochs = training.max_encoder_length, recipe.epochs
            last = int(training.data["time"].max())
            self.calls.append((name, history, epochs, last))
            self.seeds.append(seed)
            self.starts.append(start)
            self.rates.append(recipe.learning_rate)
            self.observed.append("callbacks" in trainer_kwargs)
            if name.startswith("refit"):
                assert validation is None
                return TrainingResult(model(name), epochs, NAN)
            loss = self.losses.get((history, epochs), self.losses.get(epochs, NAN))
            if isinstance(loss, BaseException):
                raise loss
            return TrainingResult(
                model(f"{history} {epochs}"), epochs, loss, epochs in self.interrupted
            )

        monkeypatch.setattr(fitting, "training_set", built_once(training_set))
        monkeypatch.setattr(fitting, "validation_set", built_once(validation_set))
        monkeypatch.setattr(fitting._Fit, "train", train)
        monkeypatch.setattr(fitting._Fit, "mix_and_calibrate", lambda self, fitted, split: fitted)


def model(name: str) -> Any:
    """Return what stands for a model."""
    return name


def settings(**parameters: Any) -> Settings:
    return fit_settings(**{"seed": 5, "trainer_kwargs": {"callbacks": []}, **parameters})


PANEL = panel_of_values(noisy_season(60))  # the last six rows are held out


def test_all_stages_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Histories compete, then budgets with the best of them, whose epochs all rows get."""
    monkeypatch.setattr(fitting, "candidate_histories", lambda panel, split: [2, 7, 14])
    losses = {(2, 3): 3.0, (7, 3): 1.0, (14, 3): 2.0, (7, 10): 0.9, (14, 10): 1.5, (2, 10): 2.5}
    trainings = Trainings(monkeypatch, {**losses, (7, 40): 0.95})
    fitted = fitting.fit_panel(PANEL, settings(history=None))
    assert trainings.calls == [
        ("history 2", 2, 3, 53),
        ("history 7", 7, 3, 53),
        ("history 14", 14, 3, 53),
        ("fit", 7, 10, 53),
        ("history 14", 14, 10, 53),
        ("history 2", 2, 10, 53),
        ("fit", 7, 40, 53),
        ("refit 1/3", 7, 10, 59),
        ("refit 2/3", 7, 10, 59),
        ("refit 3/3", 7, 10, 59),
    ]
    assert trainings.rates == [0.002] * 3 + [0.005] * 7
    assert trainings.observed == [False] * 3 + [True, False, False, True] + [False] * 3
    assert trainings.seeds[-3:] == [member_seed(5, number) for number in range(3)]
    assert len(set(trainings.seeds[-3:])) == 3 and trainings.seeds[-3] == 5
    assert all(isinstance(start, LinearStart) for start in trainings.starts)
    assert [start.weights.shape for start in trainings.starts[:3]] == [(2, 4), (7, 4), (14, 4)]
    assert fitted.models == ("refit 1/3", "refit 2/3", "refit 3/3")
    assert (fitted.history, fitted.epochs, fitted.validation_loss) == (7, 10, 0.9)
    assert fitted.trials == {2: 2.5, 7: 0.9, 14: 1.5}
    assert fitted.learning_rate == 0.005


def test_given_history_is_read_by_the_linear_maps_and_as_far_as_it_helps_by_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fitting, "candidate_histories", lambda panel, split: [2, 7, 14])
    losses = [3.0, 1.0, 2.0, 0.9, 1.5, 2.9, 0.8]
    read: list[tuple[int, int | None]] = []

    def train(fit: Any, name: str, training: Any, *args: Any, **kwargs: Any) -> TrainingResult:
        recipe = args[1]
        read.append((training.max_encoder_length, recipe.model.get("memory_length")))
        loss = NAN if name.startswith("refit") else losses[len(read) - 1]
        return TrainingResult(model(name), recipe.epochs, loss)

    monkeypatch.setattr(fitting._Fit, "train", train)
    monkeypatch.setattr(fitting._Fit, "mix_and_calibrate", lambda self, fitted, split: fitted)
    fitted = fitting.fit_panel(PANEL, settings(history=12, members=1))
    tried = [(12, 2), (12, 7), (12, None)]
    assert read == [*tried, (12, 7), (12, None), (12, 2), (12, 7), (12, 7)]
    assert (fitted.history, fitted.memory_length) == (12, 7)
    assert fitted.trials == {2: 2.9, 7: 0.8, 12: 1.5}

    read.clear()
    losses[:] = [1.0, 2.0]
    recipe = Recipe(model={"memory_length": 5})
    fitted = fitting.fit_panel(PANEL, settings(history=12, members=1, recipe=recipe))
    assert read == [(12, 5)] * 3
    assert (fitted.history, fitted.memory_length) == (12, 5)


def test_second_budget_may_change_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """A history that is the last at first may learn most."""
    monkeypatch.setattr(fitting, "candidate_histories", lambda panel, split: [2, 7, 14])
    losses = {(2, 3): 3.0, (7, 3): 1.0, (14, 3): 2.0, (7, 10): 0.9, (14, 10): 0.8, (2, 10): 0.7}
    trainings = Trainings(monkeypatch, {**losses, (2, 40): 0.6})
    fitted = fitting.fit_panel(PANEL, settings(history=None, members=1))
    assert [call[:3] for call in trainings.calls[3:]] == [
        ("fit", 7, 10),
        ("history 14", 14, 10),
        ("history 2", 2, 10),
        ("fit", 2, 40),
        ("refit", 2, 40),
    ]
    assert fitted.trials == {2: 0.6, 7: 0.9, 14: 0.8}


@pytest.mark.parametrize(
    ("losses", "trained", "kept"),
    [
        ((1.0, 0.9, 0.8), 3, 40),
        ((1.0, 0.9, 0.895), 3, 40),
        ((1.0, 0.9, 0.95), 3, 10),
        ((1.0, 0.9, 0.9), 3, 10),
        ((1.0, 0.9, NAN), 3, 10),
        ((1.0, 0.989, 0.9), 3, 40),
        ((1.0, 0.99, 0.5), 2, 10),
        ((1.0, 0.995, 0.5), 2, 10),
        ((1.0, 1.0, 0.5), 2, 3),
        ((1.0, 1.5, 0.5), 2, 3),
        ((1.0, NAN, 0.5), 2, 3),
        ((NAN, 0.9, 0.8), 3, 40),
        ((NAN, 0.9, 1.0), 3, 10),
        ((NAN, NAN, 0.5), 2, 3),
        ((0.0, 0.0, 0.0), 2, 3),
    ],
)
def test_longer_trainings_follow_while_they_help(
    monkeypatch: pytest.MonkeyPatch, losses: tuple[float, ...], trained: int, kept: int
) -> None:
    """By one percent; the best of all is kept, be it shorter than the last one."""
    trainings = Trainings(monkeypatch, dict(zip((3, 10, 40), losses, strict=True)))
    fitted = fitting.fit_panel(PANEL, settings(members=1))
    names = [(name, epochs) for name, _, epochs, _ in trainings.calls]
    assert names == [("fit", epochs) for epochs in (3, 10, 40)[:trained]] + [("refit", kept)]
    assert all(trainings.observed[:trained])
    rate = 0.002 if kept == 3 else 0.005
    assert fitted.epochs == kept and fitted.learning_rate == trainings.rates[-1] == rate
    np.testing.assert_equal(fitted.validation_loss, losses[(3, 10, 40).index(kept)])
    assert fitted.trials == {}


def test_one_candidate_is_trained_once_and_one_budget_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Callbacks must see a training, which those that choose the history do not show them."""
    trainings = Trainings(monkeypatch, {(2, 1): 2.0, (7, 1): 1.0})
    one = settings(history=None, recipe=Recipe(epochs=1), members=1)
    monkeypatch.setattr(fitting, "candidate_histories", lambda panel, split: [7])
    fitting.fit_panel(PANEL, one)
    assert [call[0] for call in trainings.calls] == ["fit", "refit"]
    trainings.calls.clear()
    trainings.observed.clear()
    monkeypatch.setattr(fitting, "candidate_histories", lambda panel, split: [2, 7])
    fitted = fitting.fit_panel(PANEL, one)
    assert [call[:2] for call in trainings.calls] == [
        ("history 2", 2),
        ("history 7", 7),
        ("fit", 7),
        ("refit", 7),
    ]
    assert trainings.observed == [False, False, True, False]
    assert (fitted.history, fitted.epochs) == (7, 1)


def test_without_validation_the_shortest_budget_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    trainings = Trainings(monkeypatch, {})
    fitted = fitting.fit_panel(panel_of_values(noisy_season(9)), settings(history=None, members=2))
    assert [(name, epochs) for name, _, epochs, _ in trainings.calls] == [
        ("fit", 3),
        ("refit 1/2", 3),
        ("refit 2/2", 3),
    ]
    assert math.isnan(fitted.validation_loss) and fitted.epochs == 3


def test_fit_that_leaves_rows_out_keeps_the_validated_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refitted later, it learns all rows of a longer table with what was chosen."""
    trainings = Trainings(monkeypatch, {3: 1.0, 10: 0.8, 40: 0.9})
    chosen = fitting.fit_panel(PANEL, settings(learn_all=False))
    assert chosen.models == ("7 10",)
    assert [call[0] for call in trainings.calls] == ["fit"] * 3
    longer = panel_of_values(noisy_season(70))
    refitted = fitting.refit_panel(longer, settings(members=2), chosen)
    assert trainings.calls[3:] == [("refit 1/2", 7, 10, 69), ("refit 2/2", 7, 10, 69)]
    assert refitted.models == ("refit 1/2", "refit 2/2")
    assert refitted.calibration is chosen.calibration
    assert refitted.validation_loss == chosen.validation_loss


@pytest.mark.parametrize(
    ("losses", "interrupted", "kept"),
    [
        ({3: 1.0, 10: KeyboardInterrupt()}, (), "7 3"),
        ({3: 1.0, 10: 0.9, 40: KeyboardInterrupt()}, (), "7 10"),
        ({3: 1.0, 10: 0.9}, (10,), "7 10"),
        ({3: 1.0, 10: 1.1}, (10,), "7 3"),
        ({3: 1.0, 10: NAN}, (10,), "7 3"),
        ({3: 1.0}, (3,), "7 3"),
    ],
)
def test_ctrl_c_ends_the_fit_and_keeps_the_best(
    monkeypatch: pytest.MonkeyPatch, losses: dict[int, Any], interrupted: Any, kept: str
) -> None:
    trainings = Trainings(monkeypatch, losses)
    trainings.interrupted = set(interrupted)
    with pytest.raises(Interrupted) as error:
        fitting.fit_panel(PANEL, settings())
    assert error.value.fitted.models == (kept,)
    assert [call[2] for call in trainings.calls] == list(losses)


def test_linear_forecast_has_half_of_the_share_if_nothing_can_be_tested(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of many short series; of a single one, there are too few windows for a linear forecast."""
    mix = fitting._Fit.mix_and_calibrate
    Trainings(monkeypatch, {})
    monkeypatch.setattr(fitting._Fit, "mix_and_calibrate", mix)
    fit = settings(history=None, members=1)
    many = [noisy_season(9, seed=seed) for seed in range(8)]
    fitted = fitting.fit_panel(panel_of_values(*many), fit)
    assert fitted.share == UNTESTED_SHARE and fitted.linear is not None
    assert (fitted.calibration.shift == 0).all()
    alone = fitting.fit_panel(panel_of_values(many[0]), fit)
    assert alone.share == 1 and alone.linear is None


def test_refit_drops_or_renews_the_linear_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    """It learns all rows, too, unless it has no share."""
    Trainings(monkeypatch, {3: 1.0, 10: 2.0})
    fit = settings(members=1)

    def share_is(share: float) -> Fitted:
        def mix(self: Any, fitted: Fitted, split: Any) -> Fitted:
            start = self.linear_start(split.history, split.validation)
            linear = self.linear_model(fitted.dataset, start, fitted.memory_length)
            return replace(fitted, share=share, linear=linear if share < 1 else None)

        monkeypatch.setattr(fitting._Fit, "mix_and_calibrate", mix)
        return fitting.fit_panel(PANEL, fit)

    assert share_is(1.0).linear is None
    late, early = share_is(0.25), fitting.fit_panel(PANEL, replace(fit, learn_all=False))
    assert late.share == early.share == 0.25
    assert late.linear is not None and early.linear is not None
    weights = [fitted.linear.network.linear_maps()[0].trend.weight for fitted in (late, early)]
    assert not weights[0].equal(weights[1])


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 14, 40, 100])
def test_budgets_grow_to_the_maximum(epochs: int) -> None:
    recipe = Recipe(epochs=epochs, learning_rate=0.5)
    budgets = fitting.budgets(recipe)
    counts = [budget.epochs for budget in budgets]
    assert counts == sorted(set(counts)) and counts[-1] == epochs and counts[0] >= 1
    rates = [budget.learning_rate for budget in budgets]
    assert rates == ([0.5] if epochs == 1 else [0.2, *[0.5] * (len(budgets) - 1)])
