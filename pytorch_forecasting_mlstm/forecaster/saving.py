"""Save a fitted forecaster in one file that runs no code, and load it again."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning import pytorch as pl
from lightning.pytorch.utilities.seed import isolate_rng

from .._messages import one_line
from .._safe_files.archive import read_archive
from .._safe_files.files import write_file
from .._safe_files.serialization import deserialize, serialize
from .._safe_files.sizes import check_expanded_size
from ..data import BatchedTimeSeriesDataSet
from ..models import mLSTMTime
from ..models.base.checkpoint.limits import check_weights_finite
from .errors import InputError
from .panel.panel import Panel
from .reading import TableReader
from .state import State
from .tables.groups import match_series
from .tables.records import Records
from .tables.roles import Roles
from .tables.table_kind import TableKind
from .times.time_axis import TimeAxis
from .times.time_format import TimeFormat
from .training.calendar_effects.choice import read_effects, write_effects
from .training.calibration import Calibration
from .training.fitted import Fitted
from .training.layout import TIME, Layout
from .training.lightning_output import SILENT_TRAINER, quiet_lightning
from .training.recipe import Recipe
from .training.scaling import Scaling

_KEY = "forecaster"
_FORMAT = 4
#: Files of format 1 have one model. Those of format 3 may have an effect of the calendar, and those
#: of format 4 several.
_READABLE = (1, 2, 3, 4)
#: The last words of messages about files, which this module says itself.
_ADVICE = re.compile(r"(?:[;,] load another (?:one|file))?\.$")


def save_state(path: Path, parameters: Mapping[str, Any], state: State) -> None:
    """Write a forecaster into a file, which is a checkpoint of its first model, too.

    Parameters
    ----------
    path : Path
        The file. It is replaced once the new one is complete.
    parameters : mapping
        Parameters of the forecaster.
    state : State
        What it has learned.

    Warns
    -----
    UserWarning
        If a parameter cannot be written.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    fitted, records = state.fitted, state.records
    written = serialize(
        {
            "format": _FORMAT,
            "roles": asdict(state.roles),
            "levels": list(state.levels),
            "axis": state.axis.to_dict(),
            "time_format": records.time_format.to_dict(),
            "kind": state.kind.to_dict(),
            "groups": _write_groups(state.groups),
            "records": {
                "groups": _write_groups(records.groups),
                "series": records.series.astype(np.int64),
                "times": _write_times(records.times),
                "columns": {n: _write_column(records.columns[n]) for n in records.columns},
                "real": records.real,
            },
            "fitted": {
                "layout": asdict(fitted.layout),
                "center": fitted.scaling.center,
                "spread": fitted.scaling.spread,
                "effects": write_effects(fitted.scaling.effects),
                "shift": fitted.calibration.shift,
                "lower_bound": float(fitted.lower_bound),
                "history": fitted.history,
                "epochs": fitted.epochs,
                "learning_rate": float(fitted.learning_rate),
                "validation_loss": float(fitted.validation_loss),
                "trials": dict(fitted.trials),
                # The first model is the checkpoint itself; the others differ by their weights.
                "members": [dict(model.state_dict()) for model in fitted.models[1:]],
                "linear": None if fitted.linear is None else dict(fitted.linear.state_dict()),
                "share": float(fitted.share),
            },
            **{f"parameter {name}": value for name, value in parameters.items()},
        }
    )
    lost = [name.removeprefix("parameter ") for name in written["unwritten"]]
    if lost:
        warnings.warn(
            f"Forecaster.save: the file is written without {' and '.join(lost)}, which cannot be "
            "stored as plain data: set it again after loading",
            UserWarning,
            stacklevel=3,
        )
    checkpoint = _checkpoint_of(fitted.models[0])
    checkpoint[_KEY] = written
    try:
        write_file(checkpoint, path)
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


def load_state(path: Path) -> tuple[dict[str, Any], State]:
    """Read a file that `save_state` has written.

    Returns
    -------
    parameters : dict
        Parameters of the forecaster.
    state : State
        What it has learned.

    Raises
    ------
    InputError
        If there is no such file, or it is not one of a forecaster.
    """
    name = repr(str(path))
    if not path.is_file():
        raise InputError(f"no file {name}: check the path")
    try:
        content = read_archive(path, "Forecaster.load").content
        written = content[_KEY] if isinstance(content, dict) and _KEY in content else None
        if written is None:
            raise InputError(f"{name} is no file of a forecaster: load one that save has written")
        check_expanded_size(written, written.get("objects"), path.stat().st_size)
        values = deserialize(written)
        if values.get("format") not in _READABLE:
            raise InputError(
                f"{name} has format {values.get('format')!r}, but this version reads "
                f"{_FORMAT}: update pytorch_forecasting_mlstm"
            )
        with isolate_rng(), quiet_lightning():  # its first weights are drawn
            model = mLSTMTime.load_from_checkpoint(path)
        parameters = {
            key.removeprefix("parameter "): value
            for key, value in values.items()
            if key.startswith("parameter ")
        }
        return parameters, _read_state(values, model, parameters)
    except InputError:
        raise
    except Exception as error:  # a damaged or crafted file can raise anything
        reason = one_line(error) or type(error).__name__
        reason = _ADVICE.sub("", reason)  # of a checkpoint
        raise InputError(f"{name} cannot be read: {reason}: load another file") from error


def _read_state(values: dict[str, Any], model: mLSTMTime, parameters: dict[str, Any]) -> State:
    columns = dict(values["roles"])
    roles = Roles(columns.pop("time"), **{part: tuple(names) for part, names in columns.items()})
    axis = TimeAxis.from_dict(values["axis"])
    stored = values["records"]
    records = Records(
        groups=_read_groups(stored["groups"]),
        series=stored["series"],
        times=_read_times(stored["times"]),
        columns=pd.DataFrame({n: _read_column(c) for n, c in stored["columns"].items()}),
        real=dict(stored["real"]),
        time_format=TimeFormat.from_dict(values["time_format"]),
    )
    groups, learned = _read_groups(values["groups"]), values["fitted"]
    panel = TableReader(parameters).panel(records, roles, axis)
    layout = Layout(**learned["layout"])
    center = learned["center"]
    if values["format"] < 4:
        effects = [] if learned.get("effect") is None else [learned["effect"]]
    else:
        effects = learned["effects"]
    scaling = Scaling(center, learned["spread"], read_effects(effects, len(center)))
    linear = learned.get("linear")
    fitted = Fitted(
        models=(model, *(_with_weights(model, weights) for weights in learned.get("members", []))),
        linear=None if linear is None else _with_weights(model, linear),
        share=_read_share(learned.get("share", 1.0)),
        dataset=_rebuild_dataset(model, panel, layout, scaling, groups),
        layout=layout,
        scaling=scaling,
        calibration=Calibration(learned["shift"]),
        lower_bound=learned["lower_bound"],
        history=learned["history"],
        memory_length=model.hparams.memory_length,
        epochs=learned["epochs"],
        learning_rate=learned.get("learning_rate", Recipe.learning_rate),
        validation_loss=learned["validation_loss"],
        trials=dict(learned["trials"]),
    )
    kind = TableKind.from_dict(values["kind"])
    return State(roles, records, axis, groups, kind, fitted, tuple(values["levels"]))


def _with_weights(model: mLSTMTime, weights: dict[str, Any]) -> mLSTMTime:
    check_weights_finite(model, weights)
    other = deepcopy(model)
    other.load_state_dict(weights)
    return other


def _read_share(share: float) -> float:
    if not 0 <= share <= 1:
        raise ValueError(f"the share of the models must be from 0 to 1, got {share}")
    return share


def _rebuild_dataset(
    model: mLSTMTime, panel: Panel, layout: Layout, scaling: Scaling, groups: pd.DataFrame
) -> BatchedTimeSeriesDataSet:
    numbers, end = match_series(groups, panel.groups), int(panel.lengths.max())
    here = scaling.match(panel, numbers)
    frame = layout.frame(here.without_effects(panel), here, numbers, end)
    return BatchedTimeSeriesDataSet.from_parameters(
        model.dataset_parameters, frame[frame[TIME] < end]
    )


def _checkpoint_of(model: mLSTMTime) -> dict[str, Any]:
    """Return the content of a checkpoint of the model, plain data and tensors."""
    with tempfile.TemporaryDirectory() as folder, quiet_lightning():
        file = Path(folder) / "model.ckpt"
        trainer = pl.Trainer(accelerator="cpu", **SILENT_TRAINER)
        trainer.strategy.connect(model)
        trainer.save_checkpoint(file, weights_only=True)
        content: dict[str, Any] = read_archive(file, "Forecaster.save").content
    return content


def _write_groups(groups: pd.DataFrame) -> dict[str, Any]:
    return {"count": len(groups), "columns": {n: groups[n].tolist() for n in groups}}


def _read_groups(written: dict[str, Any]) -> pd.DataFrame:
    columns = {name: pd.Series(values) for name, values in written["columns"].items()}
    return pd.DataFrame(columns, index=pd.RangeIndex(written["count"]))


def _write_times(times: pd.Series) -> dict[str, Any]:
    return {"dtype": str(times.dtype), "values": times.to_numpy().view(np.int64)}


def _read_times(written: dict[str, Any]) -> pd.Series:
    return pd.Series(np.asarray(written["values"], dtype=np.int64).view(np.dtype(written["dtype"])))


def _write_column(column: pd.Series) -> Any:
    if column.dtype.kind == "f":
        return column.to_numpy()
    codes, classes = pd.factorize(column)
    return {"codes": codes.astype(np.int64), "classes": [str(value) for value in classes]}


def _read_column(written: Any) -> np.ndarray:
    if isinstance(written, dict):
        return np.array(written["classes"], dtype=object)[written["codes"]]
    return np.asarray(written, dtype=float)
