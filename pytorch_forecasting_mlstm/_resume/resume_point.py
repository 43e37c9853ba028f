"""Set Lightning's counters to a point from which training can resume.

Lightning saves its counters in whatever state they are: within a batch, before or after a
validation, before or after the end of an epoch. On resume it guesses from them what remains to be
done, and skips validations, ends of epochs and counts. The functions here set the counters of a
checkpoint, ``loops.fit_loop``, to one of four points whose remaining work is known:

``AFTER_STEP``
    The step of the optimizer is done. The validation, if it is due, and everything after it remain.
``BEFORE_BATCH``
    Validation and schedulers are done as well. The next batch of the same epoch comes next.
``EPOCH_END``
    All batches and validations of the epoch are done. The hooks at its end remain.
``BEFORE_EPOCH``
    The epoch is complete, or none has begun. The next epoch comes next.
"""

from typing import Any

__all__ = [
    "AFTER_STEP",
    "BEFORE_BATCH",
    "BEFORE_EPOCH",
    "EPOCH_END",
    "find_resume_point",
    "set_resume_point",
]

AFTER_STEP = "after step"
BEFORE_BATCH = "before batch"
EPOCH_END = "epoch end"
BEFORE_EPOCH = "before epoch"

_BATCHES = "epoch_loop.batch_progress"
_VALIDATION = "epoch_loop.val_loop.batch_progress"


def find_resume_point(loop: dict[str, Any], logged_step: int, stopping: bool) -> str:
    """Find the last point that the training has passed.

    Parameters
    ----------
    loop : dict
        State of Lightning's fit loop.
    logged_step : int
        Lightning's step number for loggers when the last batch ended. Lightning increases it after
        the validation, so a larger number means that the validation is done.
    stopping : bool
        Whether the training has been asked to stop. The last validation may be the reason, so it is
        repeated on resume.

    Returns
    -------
    str
        One of the four points.
    """
    epochs, batches = loop["epoch_progress"]["current"], loop[_BATCHES]["current"]
    last = loop[_BATCHES]["is_last_batch"]
    if epochs["ready"] == epochs["completed"] or epochs["started"] < epochs["ready"]:
        return BEFORE_EPOCH
    if epochs["processed"] == epochs["ready"]:
        return EPOCH_END if last and not stopping else AFTER_STEP
    if batches["processed"] == 0:
        return BEFORE_EPOCH
    if batches["ready"] > batches["processed"]:
        return BEFORE_BATCH
    validated = loop["epoch_loop.state_dict"]["_batches_that_stepped"] > logged_step
    return BEFORE_BATCH if validated and not last else AFTER_STEP


def set_resume_point(loop: dict[str, Any], point: str, logged_step: int, undone: int = 0) -> None:
    """Set the counters to a point, in place.

    Parameters
    ----------
    loop : dict
        State of Lightning's fit loop.
    point : str
        One of the four points.
    logged_step : int
        Lightning's step number for loggers when the last batch before the point ended.
    undone : int
        Batches of this epoch after the point, which must be repeated.
    """
    # `update_restart_stage`, `reset` and `advance` of Lightning's loops interpret each combination;
    # tests/test_resume_points.py fails if that changes.
    epoch = loop["epoch_progress"]["current"]["completed"]
    begun = epoch if point == BEFORE_EPOCH else epoch + 1
    for scope in ("total", "current"):
        counts = loop["epoch_progress"][scope]
        counts.update(ready=begun, started=begun, processed=epoch, completed=epoch)

    batches = loop[_BATCHES]
    done = 0 if point == BEFORE_EPOCH else batches["current"]["processed"] - undone
    total = batches["total"]["processed"] - undone
    # After a batch that is not completed, Lightning skips the validation and takes the next batch.
    completed = -1 if point == BEFORE_BATCH else 0
    for scope, count in (("total", total), ("current", done)):
        counts = dict.fromkeys(("ready", "started", "processed"), count)
        batches[scope].update(counts, completed=count + completed)
    batches["is_last_batch"] = batches["is_last_batch"] and point in (AFTER_STEP, EPOCH_END)

    # Lightning repeats a validation that has begun but has not started its first batch.
    validating = int(point == AFTER_STEP)
    zeros = dict.fromkeys(("ready", "started", "processed", "completed"), 0)
    loop[_VALIDATION].update(
        total={**zeros, "ready": validating, "started": validating},
        current=zeros,
        is_last_batch=False,
    )
    if point in (AFTER_STEP, BEFORE_BATCH):
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] = logged_step

    loaders = loop["state_dict"].get("combined_loader", [])
    if len(loaders) == 1 and loaders[0].keys() == {"epoch", "batches"}:
        loaders[0]["batches"] = 0 if batches["is_last_batch"] else done
