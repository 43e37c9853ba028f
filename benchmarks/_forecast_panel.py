"""A table as arrays, and forecasts of it as a table, for models that know no tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from _covariate_tables import Task
from _forecast_scores import LEVELS


@dataclass(frozen=True)
class Panel:
    """The S series of a table, which all have the same T times.

    Attributes
    ----------
    values : numpy.ndarray
        (S, T): the target.
    known, past : numpy.ndarray
        (S, T, K) and (S, T, P): covariates; classes are numbered.
    known_classes : tuple of int
        The columns of `known` that are classes.
    static : numpy.ndarray
        (S, Q): columns that do not change.
    keys : pandas.DataFrame
        (S,): the columns of the series.
    times : pandas.DatetimeIndex
        (T,).
    cutoffs : tuple of int
        Number of known times before each test window, oldest first.
    """

    values: np.ndarray
    known: np.ndarray
    past: np.ndarray
    known_classes: tuple[int, ...]
    static: np.ndarray
    keys: pd.DataFrame
    times: pd.DatetimeIndex
    cutoffs: tuple[int, ...]

    @property
    def lower_bound(self) -> float:
        """0 if the target is never negative in training, and else no bound."""
        return 0.0 if np.nanmin(self.values[:, : self.cutoffs[0]]) >= 0 else -np.inf


def to_panel(task: Task) -> Panel:
    """Turn the table of a task into arrays.

    Raises
    ------
    ValueError
        If the series do not all have the same times.
    """
    spec, data = task.spec, task.data
    group = list(spec.group)
    keys = data[group].drop_duplicates(ignore_index=True) if group else pd.DataFrame(index=[0])
    times = pd.DatetimeIndex(data[spec.time].unique())
    shape = (len(keys), len(times))
    if (
        shape[0] * shape[1] != len(data)
        or (data[spec.time].to_numpy().reshape(shape) != times.to_numpy()).any()
    ):
        raise ValueError(f"to_panel: the series of {task.key} must all have the same times")
    classes = [not pd.api.types.is_numeric_dtype(data[name]) for name in spec.known]
    ends = [len(times) - k * spec.horizon for k in range(task.windows, 0, -1)]
    return Panel(
        values=data[spec.target].to_numpy(dtype=float).reshape(shape),
        known=_numbers(data, spec.known).reshape(*shape, -1),
        past=_numbers(data, spec.past).reshape(*shape, -1),
        known_classes=tuple(place for place, is_class in enumerate(classes) if is_class),
        static=_numbers(data, spec.static).reshape(*shape, -1)[:, 0],
        keys=keys,
        times=times,
        cutoffs=tuple(ends),
    )


def to_table(task: Task, panel: Panel, point: np.ndarray, quantiles: np.ndarray) -> pd.DataFrame:
    """Return forecasts, (W, S, h) and (W, S, h, Q), as `Forecaster.backtest` does."""
    frames = []
    for window, cutoff in enumerate(panel.cutoffs):
        horizon = task.spec.horizon
        frame = panel.keys.loc[panel.keys.index.repeat(horizon)].reset_index(drop=True)
        frame[task.spec.time] = np.tile(panel.times[cutoff : cutoff + horizon], len(panel.keys))
        frame["cutoff"] = panel.times[cutoff - 1]
        frame["prediction"] = point[window].ravel()
        for place, level in enumerate(LEVELS):
            frame[f"q{level:g}"] = quantiles[window, ..., place].ravel()
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _numbers(data: pd.DataFrame, names: tuple[str, ...]) -> np.ndarray:
    columns = [
        data[name].to_numpy(dtype=float)
        if pd.api.types.is_numeric_dtype(data[name])
        else pd.factorize(data[name], sort=True)[0].astype(float)
        for name in names
    ]
    return np.stack(columns, axis=-1) if columns else np.empty((len(data), 0))
