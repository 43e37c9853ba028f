"""Cut the rows that a forecast reads: the end of every series, and its horizon."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import Argument, InputError, quoted
from .panel import Panel


def cut_last_windows(panel: Panel, history: int, min_history: int, horizon: int) -> Panel:
    """Keep the last rows of every series, and exactly `horizon` rows after them.

    Series that are shorter than `min_history` begin with rows without a target. A series whose last
    target is missing, as before a cutoff or where it is masked, ends with its last observed one:
    the model needs a value in its history, and takes rows without one at the end for those to
    forecast.

    Parameters
    ----------
    panel : Panel
        The series. Rows beyond the known covariates repeat the last ones.
    history, min_history, horizon : int
        Steps.
    """
    past = np.clip(panel.lengths, min_history, history)
    sizes = past + horizon
    begins = np.concatenate([[0], np.cumsum(sizes)])
    series = np.repeat(np.arange(len(panel)), sizes)
    step = np.arange(begins[-1]) - begins[series] - past[series] + panel.lengths[series]
    last = np.diff(panel.begins) - 1
    source = panel.begins[series] + np.clip(step, 0, last[series])
    observed = (step >= 0) & (step < panel.lengths[series])
    target = np.where(observed, panel.target[source], np.nan)
    ends = begins[:-1] + past - 1
    target[ends] = [values[np.isfinite(values)][-1] for values in panel.values]
    return replace(
        panel,
        begins=begins,
        starts=panel.ends - past,
        lengths=past,
        target=target,
        covariates=panel.covariates.iloc[source].reset_index(drop=True),
        is_given=panel.is_given[source],
    )


def check_future(panel: Panel, horizon: int, source: str) -> None:
    """Raise an InputError unless there is a calendar, and the known covariates, over the horizon.

    Parameters
    ----------
    panel : Panel
        The series.
    horizon : int
        Steps to forecast.
    source : str
        Name of the argument with the plan, for messages.
    """
    panel.axis.check(int(panel.ends.max()) + horizon - 1)
    if not panel.roles.known:
        return
    steps = panel.steps - panel.lengths[panel.series]
    planned = panel.is_given & (steps >= 0) & (steps < horizon)
    counts = np.bincount(panel.series[planned], minlength=len(panel))
    lacking = np.flatnonzero(counts < horizon)
    if not len(lacking):
        return
    number = int(lacking[0])
    others = f" (and {len(lacking) - 1} more series)" if len(lacking) > 1 else ""
    present = steps[planned & (panel.series == number)]
    first = np.setdiff1d(np.arange(len(present) + 1), present)[0]
    names = " and ".join(map(quoted, panel.roles.known))
    raise InputError(
        f"{panel.label(number)}{others}: ",
        Argument(source),
        f" lacks {names} for {panel.axis.at(panel.ends[number : number + 1] + first)[0]}:"
        f" pass rows for all {horizon} steps to forecast as ",
        Argument("future"),
        ", or choose a smaller ",
        Argument("horizon"),
    )
