"""The running sums behind ``self.log(..., on_epoch=True)``.

Lightning does not save them. After a resume, the mean of an epoch would be that of the remaining
steps only, and early stopping or a scheduler that reads it would decide differently.
"""

from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.trainer.states import TrainerStatus
from torch import Tensor

__all__ = ["gather_epoch_means", "read_epoch_means", "restore_epoch_means"]

_STATES = ("value", "cumulated_batch_size", "_forward_cache")
_OPTIONS = ("prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "add_dataloader_idx")


def read_epoch_means(trainer: Trainer) -> list[dict[str, Any]]:
    """Read the sums of all tensors that training steps of this epoch have logged."""
    means = []
    for metric in trainer.fit_loop.epoch_loop._results.values():
        meta = metric.meta
        if not metric.is_tensor or metric.has_reset or not meta.on_epoch:
            continue
        options: dict[str, Any] = {name: getattr(meta, name) for name in _OPTIONS}
        options.update(
            fx=meta.fx,
            name=meta.name,
            reduce_fx=meta.reduce_fx.__name__,
            metric_attribute=meta.metric_attribute,
            sync_dist=meta.sync.should,
            rank_zero_only=meta.sync.rank_zero_only,
        )
        # Not copied: Lightning replaces these tensors and never changes them.
        states = {name: getattr(metric, name, None) for name in _STATES}
        means.append({"options": options, "states": states})
    return means


def gather_epoch_means(trainer: Trainer, means: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Gather the sums of all processes, in the order of their ranks."""
    means = _move(means, torch.device("cpu"))
    # After an exception in one process, the others would not take part.
    if trainer.world_size == 1 or trainer.state.status == TrainerStatus.INTERRUPTED:
        return [means]
    gathered: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, means)
    return gathered


def restore_epoch_means(trainer: Trainer, gathered: list[list[dict[str, Any]]]) -> None:
    """Restore the sums of this process."""
    if trainer.global_rank >= len(gathered) or not gathered[trainer.global_rank]:
        return
    results = trainer.fit_loop.epoch_loop._results
    for mean in _move(gathered[trainer.global_rank], trainer.strategy.root_device):
        options, states = mean["options"], mean["states"]
        value = states["value"] if states["_forward_cache"] is None else states["_forward_cache"]
        results.log(**options, value=value, sync_dist_fn=trainer.strategy.reduce, batch_size=1)
        metric = results[f"{options['fx']}.{options['name']}"]
        for name, state in states.items():
            setattr(metric, name, state)
    # Otherwise Lightning resets the sums at the first step.
    trainer._logger_connector._first_loop_iter = False


def _move(means: list[dict[str, Any]], device: torch.device) -> list[dict[str, Any]]:
    def move(state: Any) -> Any:
        return state.detach().to(device) if isinstance(state, Tensor) else state

    return [
        {**mean, "states": {name: move(state) for name, state in mean["states"].items()}}
        for mean in means
    ]
