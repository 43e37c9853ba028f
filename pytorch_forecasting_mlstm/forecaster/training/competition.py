"""Histories and budgets compete on held-out rows: short trainings first, then longer ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .history import choose_history
from .recipe import Recipe
from .train import TrainingResult

#: A longer training must lower the validation loss to this share, or it is the last one.
_WORTH_LONGER = 0.99


class Run(NamedTuple):
    """One training: its history, its recipe and its result."""

    history: int
    recipe: Recipe
    result: TrainingResult

    @property
    def loss(self) -> float:
        """The validation loss."""
        return self.result.validation_loss


class Competition(NamedTuple):
    """All trainings, and whether Ctrl-C ended them early."""

    runs: list[Run]
    interrupted: bool

    @property
    def best(self) -> Run:
        """The best training."""
        return best_run(self.runs)

    def losses(self) -> dict[int, float]:
        """Return the lowest loss of each history."""
        return _losses(self.runs)


#: Trains with a history and a recipe; the last argument is whether the user observes the training.
Train = Callable[[int, Recipe, bool], TrainingResult]


def compete(histories: Sequence[int], recipes: Sequence[Recipe], train: Train) -> Competition:
    """Train with each history for the two smallest budgets, and with the best one for larger ones.

    The first budget is too short to tell what a history is worth. Larger ones end when a training
    does not lower the loss by 1 %.

    Parameters
    ----------
    histories : sequence of int
        The candidates.
    recipes : sequence of Recipe
        The budgets, smallest first.
    train : callable
        Called with a history, a recipe, and whether this is the history that leads; of several
        candidates, none leads before all had a training.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, if no training has an epoch.
    """
    shortest, *longer = recipes
    alone = len(histories) == 1
    runs = [Run(steps, shortest, train(steps, shortest, alone)) for steps in histories]
    if runs[-1].result.interrupted:
        return Competition(runs, True)
    finalists = len(histories)
    if not alone and not longer:  # nobody has observed the best one yet
        longer, finalists = [shortest], 1
    for recipe in longer:
        leader = best_run(runs)
        for steps in _leading_histories(runs, finalists):
            try:
                result = train(steps, recipe, steps == leader.history)
            except KeyboardInterrupt:  # in the first epoch
                return Competition(runs, True)
            runs.append(Run(steps, recipe, result))
            if result.interrupted:
                return Competition(runs, True)
        finalists = 1
        loss = leader.loss if math.isfinite(leader.loss) else math.inf
        if not best_run(runs).loss < _WORTH_LONGER * loss:
            break
    return Competition(runs, False)


def best_run(runs: Sequence[Run]) -> Run:
    """Return the best run of the best history; among equal ones, the shorter training."""
    history = choose_history(_losses(runs))
    of_history = [run for run in runs if run.history == history]
    return min(of_history, key=lambda run: run.loss if math.isfinite(run.loss) else math.inf)


def _leading_histories(runs: Sequence[Run], count: int) -> list[int]:
    """Return the best histories, best first."""
    losses = _losses(runs)
    leading: list[int] = []
    while losses and len(leading) < count:
        leading.append(choose_history(losses))
        del losses[leading[-1]]
    return leading


def _losses(runs: Sequence[Run]) -> dict[int, float]:
    """Return the lowest loss of each history; NaN only if it has no other."""
    losses: dict[int, float] = {}
    for run in runs:
        losses[run.history] = float(np.fmin(losses.get(run.history, math.nan), run.loss))
    return losses
