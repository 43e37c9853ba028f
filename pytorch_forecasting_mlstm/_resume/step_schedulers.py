"""Schedulers that read a metric after each step: a repeated step must not advance them twice."""

from copy import deepcopy
from typing import Any

from lightning import Trainer

__all__ = ["read_step_schedulers", "write_step_schedulers"]


def read_step_schedulers(trainer: Trainer) -> dict[str, Any] | None:
    """Copy schedulers and learning rates if Lightning advances a scheduler after the validation.

    It does so for ``ReduceLROnPlateau`` with ``interval="step"``, and advances all others before.
    """
    configs = trainer.lr_scheduler_configs
    if not any(config.reduce_on_plateau and config.interval == "step" for config in configs):
        return None
    options = [
        [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        for optimizer in trainer.optimizers
    ]
    schedulers = [config.scheduler.state_dict() for config in configs]
    return deepcopy({"groups": options, "schedulers": schedulers})


def write_step_schedulers(checkpoint: dict[str, Any], states: dict[str, Any]) -> None:
    """Replace the schedulers and learning rates of a checkpoint by those of an earlier moment."""
    checkpoint["lr_schedulers"] = states["schedulers"]
    for optimizer, groups in zip(checkpoint["optimizer_states"], states["groups"], strict=True):
        optimizer["param_groups"] = [
            {**current, **earlier}
            for current, earlier in zip(optimizer["param_groups"], groups, strict=True)
        ]
