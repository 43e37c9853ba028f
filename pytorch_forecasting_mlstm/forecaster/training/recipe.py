"""The recipe: everything that decides how a model is trained, and its defaults, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    batches_per_epoch: int = 30
    batch_size: int = 64
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2
    patience: int = 15
    model: Mapping[str, Any] = field(default_factory=dict)


#: Epochs of the short trainings that choose the history.
TRIAL_EPOCHS = 10

#: Weights are averaged exponentially over the steps of a training.
AVERAGE_DECAY = 0.98
