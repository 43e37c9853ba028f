"""Histories and budgets compete: which are trained, which is the best, and what Ctrl-C leaves."""

import math
from typing import Any

import pytest

from pytorch_forecasting_mlstm.forecaster.training.competition import Competition, compete
from pytorch_forecasting_mlstm.forecaster.training.recipe import Recipe
from pytorch_forecasting_mlstm.forecaster.training.train import TrainingResult

NAN = math.nan
Key = tuple[int, int]


def run(
    losses: dict[Key, Any], histories: tuple[int, ...], budgets: tuple[int, ...] = (3, 10, 40)
) -> tuple[Competition, list[tuple[int, int, bool]]]:
    """Compete by a table of losses of (history, epochs), or of what interrupts the training."""
    calls: list[tuple[int, int, bool]] = []

    def train(history: int, recipe: Recipe, leads: bool) -> TrainingResult:
        calls.append((history, recipe.epochs, leads))
        loss = losses[history, recipe.epochs]
        if loss is KeyboardInterrupt:
            raise KeyboardInterrupt
        model: Any = None
        if isinstance(loss, tuple):  # interrupted later than in the first epoch
            return TrainingResult(model, 1, loss[0], interrupted=True)
        return TrainingResult(model, recipe.epochs, loss)

    recipes = [Recipe(epochs=epochs) for epochs in budgets]
    return compete(histories, recipes, train), calls


def best(competition: Competition) -> Key:
    return competition.best.history, competition.best.recipe.epochs


def test_all_histories_get_the_second_budget_and_one_the_third() -> None:
    losses: dict[Key, Any] = {(2, 3): 5, (7, 3): 3, (14, 3): 4, (50, 3): 6}
    losses |= {(7, 10): 2.5, (14, 10): 2, (2, 10): 4.5, (50, 10): 1.9, (50, 40): 1.5}
    competition, calls = run(losses, (2, 7, 14, 50))
    assert [call[:2] for call in calls[4:]] == [(7, 10), (14, 10), (2, 10), (50, 10), (50, 40)]
    assert [call[2] for call in calls] == [False] * 4 + [True] + [False] * 3 + [True]
    assert best(competition) == (50, 40) and not competition.interrupted
    assert competition.losses() == {2: 4.5, 7: 2.5, 14: 2, 50: 1.5}


def test_the_second_history_keeps_the_competition_going() -> None:
    """Also where the first one learns nothing more; its earlier training competes as it is."""
    losses: dict[Key, Any] = {(7, 3): 3, (14, 3): 4, (7, 10): 3.5, (14, 10): 2, (14, 40): 2.2}
    competition, calls = run(losses, (7, 14))
    assert calls[-1] == (14, 40, True) and best(competition) == (14, 10)
    losses = {(7, 3): 3, (14, 3): 4, (7, 10): 3.5, (14, 10): 2.99}
    competition, calls = run(losses, (7, 14))
    assert len(calls) == 4  # less than one percent better
    assert best(competition) == (7, 3)  # and for that, no longer history is taken


def test_one_budget_is_observed_once_with_the_best_history() -> None:
    losses: dict[Key, Any] = {(7, 1): 3, (14, 1): 2, (21, 1): 2.5}
    competition, calls = run(losses, (7, 14, 21), (1,))
    assert calls[-1] == (14, 1, True) and len(calls) == 4
    assert best(competition) == (14, 1)
    competition, calls = run(losses, (7,), (1,))
    assert calls == [(7, 1, True)]


def test_losses_that_are_no_numbers_lose() -> None:
    losses: dict[Key, Any] = {(7, 3): NAN, (14, 3): 4, (14, 10): NAN, (7, 10): 3, (7, 40): NAN}
    competition, calls = run(losses, (7, 14))
    assert [call[:2] for call in calls[2:4]] == [(14, 10), (7, 10)]
    assert best(competition) == (7, 10)
    assert competition.losses() == {7: 3, 14: 4}
    nothing: dict[Key, Any] = {(h, e): NAN for h in (7, 14) for e in (3, 10, 40)}
    competition, calls = run(nothing, (7, 14))
    assert best(competition) == (7, 3) and len(calls) == 4
    assert all(math.isnan(loss) for loss in competition.losses().values())


FIRST: dict[Key, Any] = {(7, 3): 3.0, (14, 3): 4.0}
STOP = KeyboardInterrupt


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ({**FIRST, (7, 10): STOP}, (7, 3)),
        ({**FIRST, (7, 10): (2.0,)}, (7, 10)),
        ({**FIRST, (7, 10): (3.5,)}, (7, 3)),
        ({**FIRST, (7, 10): (NAN,)}, (7, 3)),
        ({**FIRST, (7, 10): 2.0, (14, 10): STOP}, (7, 10)),
        ({**FIRST, (7, 10): 3.5, (14, 10): STOP}, (7, 3)),
        ({**FIRST, (7, 10): 2.0, (14, 10): 3.0, (7, 40): STOP}, (7, 10)),
        ({**FIRST, (7, 10): 2.0, (14, 10): 1.0, (14, 40): (0.5,)}, (14, 40)),
    ],
)
def test_ctrl_c_keeps_the_best_so_far(losses: dict[Key, Any], kept: Key) -> None:
    """And no training follows."""
    competition, calls = run(losses, (7, 14))
    assert competition.interrupted and best(competition) == kept
    assert [call[:2] for call in calls] == list(losses)


def test_ctrl_c_before_all_histories_are_compared_keeps_nothing() -> None:
    for losses in ({(7, 3): STOP}, {(7, 3): 3.0, (14, 3): STOP}):
        with pytest.raises(KeyboardInterrupt):
            run(losses, (7, 14))
    competition, _ = run({(7, 3): (3.0,)}, (7,))
    assert competition.interrupted and best(competition) == (7, 3)
