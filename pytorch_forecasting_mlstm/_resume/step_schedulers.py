"""Schedulers that read a metric after each step, which a repeated step must not advance twice."""

from copy import deepcopy
from typing import Any

from lightning import Trainer

__all__ = ["read_step_schedulers", "write_step_schedulers"]


def read_step_schedulers(trainer: Trainer) -> dict[str, Any] | None:
    """Copy schedulers and learning rates if one of them is advanced after the validation.

    Lightning advances ``ReduceLROnPlateau`` with ``interval="step"`` there, all others before.
    """
    configs = trainer.lr_scheduler_configs
    if not any(config.reduce_on_plateau and config.interval == "step" for config in configs):
        return None
    groups = [optimizer.param_groups for optimizer in trainer.optimizers]
    options = [[{k: v for k, v in g.items() if k != "params"} for g in own] for own in groups]
    schedulers = [config.scheduler.state_dict() for config in configs]
    return deepcopy({"groups": options, "schedulers": schedulers})


def write_step_schedulers(checkpoint: dict[str, Any], states: dict[str, Any]) -> None:
    """Let a checkpoint hold schedulers and learning rates as they were."""
    checkpoint["lr_schedulers"] = states["schedulers"]
    for optimizer, groups in zip(checkpoint["optimizer_states"], states["groups"], strict=True):
        optimizer["param_groups"] = [
            {**now, **then} for now, then in zip(optimizer["param_groups"], groups, strict=True)
        ]
