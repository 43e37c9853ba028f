"""The recipe: everything that decides how a model is trained, and its defaults, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Settings of one training.

    Attributes
    ----------
    epochs : int
        Maximum number of epochs. The learning rate falls to near zero over them, along half a
        cosine.
    batches_per_epoch : int
        Windows are sampled, so that an epoch takes equally long for any table.
    batch_size : int
        Windows per batch.
    learning_rate : float
        The rate of the first epoch.
    weight_decay : float
        That of AdamW.
    patience : int
        Epochs without a better validation loss before training stops: enough to reach the small
        learning rates, which improve most.
    model : mapping
        Arguments of `mLSTMTime`, such as ``hidden_size``.
    """

    epochs: int = 40
    batches_per_epoch: int = 40
    batch_size: int = 32
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2
    patience: int = 15
    model: Mapping[str, Any] = field(default_factory=dict)


#: Epochs of the trainings that compete, as shares of the maximum: each table gets as many as help
#: it, and a small one is quickly done.
BUDGETS = (1 / 14, 1 / 4, 1)

#: The learning rate of the shortest training, as a share: of few windows, a network that learns
#: fast knows each by heart within an epoch.
SHORTEST_RATE_SHARE = 0.4

#: Largest learning rate of the linear maps, as a share: they start where a regression has put them.
_LINEAR_RATE_SHARE = 0.1
#: Beside a memory that reads less, it holds for so many windows for each step of the history, and
#: falls with fewer.
_WINDOWS_PER_STEP = 25

#: Weights are averaged exponentially over the steps of a training.
AVERAGE_DECAY = 0.98


def linear_rate_share(windows: int, history: int, memory_length: int) -> float:
    """Return the learning rate of the linear maps, as a share of that of the network.

    Adam moves every weight by about the rate, whatever its gradient. Maps that read many more steps
    than the memory, of few windows, would learn these by heart.

    >>> [round(linear_rate_share(2500, history, 50), 3) for history in (50, 100, 200, 800)]
    [0.1, 0.1, 0.05, 0.013]
    >>> linear_rate_share(2500, 800, 800)
    0.1
    """
    if memory_length >= history:
        return _LINEAR_RATE_SHARE
    return _LINEAR_RATE_SHARE * min(1.0, windows / (_WINDOWS_PER_STEP * history))


def budgets(recipe: Recipe) -> list[Recipe]:
    """Return the recipes of the trainings that compete, shortest first.

    >>> [(recipe.epochs, recipe.learning_rate) for recipe in budgets(Recipe())]
    [(3, 0.002), (10, 0.005), (40, 0.005)]
    >>> [recipe.epochs for recipe in budgets(Recipe(epochs=1))]
    [1]
    """
    epochs = sorted({max(1, round(share * recipe.epochs)) for share in BUDGETS})
    if len(epochs) == 1:
        return [recipe]
    rate = SHORTEST_RATE_SHARE * recipe.learning_rate
    shortest = replace(recipe, epochs=epochs[0], learning_rate=rate)
    return [shortest, *(replace(recipe, epochs=count) for count in epochs[1:])]
