"""Small synthetic datasets, a table of every kind of TimeSeriesDataSet, and a short fit."""

import pickle
import warnings
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import LightningModule, Trainer
from pytorch_forecasting import (
    EncoderNormalizer,
    GroupNormalizer,
    MultiNormalizer,
    NaNLabelEncoder,
    TimeSeriesDataSet,
)
from pytorch_forecasting.data import TorchNormalizer

#: Marks tests of data whose constant histories are intended, or do not matter.
ignore_flat_histories = pytest.mark.filterwarnings(
    "ignore:.* of the histories of target .* are constant:UserWarning"
)

HISTORY, HORIZON = 8, 4

Sample = tuple[dict[str, Any], tuple[Any, Any]]
Batch = tuple[dict[str, Any], tuple[Any, Any]]


def make_table(n_series: int = 3, steps: int = 26) -> pd.DataFrame:
    """Make series at several levels, with covariates and targets of every kind."""
    return _made_table(n_series, steps).copy()


@cache
def _made_table(n_series: int, steps: int) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    t = np.arange(steps)
    series = []
    for number in range(n_series):
        level = 5.0 + 3 * number
        y = level + 2 * np.sin(2 * np.pi * t / 6 + number) + 0.3 * rng.normal(size=steps)
        series.append(
            pd.DataFrame(
                {
                    "series": f"s{number}",
                    "t": t,
                    "y": y,
                    "signed": y - level,
                    "volume": np.exp(0.3 * y),
                    "share": 1 / (1 + np.exp(-(y - level) / 2)),
                    "count": rng.poisson(level, steps).astype(float),
                    "whole": rng.poisson(level, steps),
                    "label": np.where(y > level, "up", np.where(y > level - 1, "mid", "down")),
                    "price": rng.uniform(1, 2, steps),
                    "noise": rng.normal(size=steps),
                    "size": 1.5 * number,
                    "holiday": rng.choice(["none", "xmas", "easter"], steps),
                    "promotion": rng.choice(["none", "flyer", "xmas"], steps),
                    "state": rng.choice(["open", "closed"], steps),
                    "region": ["north", "south", "west"][number % 3],
                    "weight": rng.uniform(0.5, 2, steps),
                }
            )
        )
    return pd.concat(series, ignore_index=True)


def make_gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Drop every seventh time step of a table."""
    return table[table["t"] % 7 != 3]


def make_dataset(table: pd.DataFrame | None = None, **changes: Any) -> TimeSeriesDataSet:
    """Make a dataset of the table, by default one without covariates.

    Equal arguments give copies of one dataset: to copy takes a millisecond, to build a hundred.
    """
    try:
        key = pickle.dumps((table, changes))
    except (AttributeError, pickle.PicklingError):  # a function without a name
        return build_dataset(table, **changes)
    if key not in _BUILT:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            dataset = build_dataset(table, **changes)
        for warning in caught:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
        if caught:  # as they must be every time
            return dataset
        _BUILT[key] = dataset
    return deepcopy(_BUILT[key])


_BUILT: dict[bytes, TimeSeriesDataSet] = {}


def build_dataset(table: pd.DataFrame | None = None, **changes: Any) -> TimeSeriesDataSet:
    """Build a new dataset from the arguments of :func:`make_dataset`."""
    arguments = {
        "time_idx": "t",
        "target": "y",
        "group_ids": ["series"],
        "max_encoder_length": HISTORY,
        "max_prediction_length": HORIZON,
        "time_varying_unknown_reals": ["y"],
        "target_normalizer": GroupNormalizer(groups=["series"]),
        **deepcopy(changes),  # a normalizer is fitted in place
    }
    with warnings.catch_warnings():
        # pytorch-forecasting passes read-only arrays of pandas 3 to torch, which only reads them
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return TimeSeriesDataSet(make_table() if table is None else table, **arguments)


_COVARIATES = {
    "static_categoricals": ["region"],
    "static_reals": ["size"],
    "time_varying_known_categoricals": ["holiday", "promotion"],
    "time_varying_known_reals": ["price", "t"],
    "time_varying_unknown_categoricals": ["state"],
    "time_varying_unknown_reals": ["y", "noise"],
}
_REAL_TARGETS = {
    "target": ["y", "signed"],
    "time_varying_unknown_reals": ["y", "signed"],
    "target_normalizer": MultiNormalizer([GroupNormalizer(groups=["series"]), TorchNormalizer()]),
}
_MIXED_TARGETS = {
    "target": ["y", "label"],
    "time_varying_unknown_reals": ["y"],
    "time_varying_unknown_categoricals": ["label"],
    "target_normalizer": MultiNormalizer([EncoderNormalizer(), NaNLabelEncoder()]),
}


def with_target(target: str, normalizer: Any = "auto") -> dict[str, Any]:
    """Return arguments of :func:`make_dataset` for a real target."""
    return {
        "target": target,
        "time_varying_unknown_reals": [target],
        "target_normalizer": normalizer,
    }


#: Arguments of :func:`make_dataset`, by the feature that they test.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    # inputs
    "no covariates": {},
    "target not an input": {"time_varying_unknown_reals": []},
    "static real": {"static_reals": ["size"]},
    "known real": {"time_varying_known_reals": ["price"]},
    "unknown real": {"time_varying_unknown_reals": ["noise", "y"]},
    "static categorical": {"static_categoricals": ["region"]},
    "known categorical": {"time_varying_known_categoricals": ["holiday"]},
    "unknown categorical": {"time_varying_unknown_categoricals": ["state"]},
    "all covariates": _COVARIATES,
    "known group": {
        "variable_groups": {"events": ["holiday", "promotion"]},
        "time_varying_known_categoricals": ["events"],
    },
    "unknown group": {
        "variable_groups": {"events": ["holiday", "promotion"]},
        "time_varying_unknown_categoricals": ["events", "state"],
    },
    "relative time": {"add_relative_time_idx": True},
    "target scales": {"add_target_scales": True},
    "encoder length": {"add_encoder_length": True, "min_encoder_length": 3},
    "lags": {"lags": {"y": [1, 6]}},
    # lags of scaled covariates, and of targets with a TorchNormalizer, fail in pytorch-forecasting
    "lags of covariates": {
        **_COVARIATES,
        "lags": {"price": [2], "noise": [1, 5], "state": [4, 2], "holiday": [1]},
        "scalers": {"price": None, "noise": None},
    },
    "lags of a categorical target": {
        "target": "label",
        "time_varying_unknown_reals": [],
        "time_varying_unknown_categoricals": ["label"],
        "lags": {"label": [1, 5]},
        "target_normalizer": "auto",
    },
    "unseen classes": {
        "time_varying_known_categoricals": ["holiday"],
        "time_varying_unknown_categoricals": ["state"],
        "categorical_encoders": {
            "holiday": NaNLabelEncoder(add_nan=True),
            "state": NaNLabelEncoder(add_nan=True),
        },
    },
    "scaled covariates": {
        **_COVARIATES,
        "scalers": {"price": EncoderNormalizer(), "noise": GroupNormalizer(), "size": None},
    },
    "weights": {"weight": "weight"},
    # lengths
    "variable encoders": {"min_encoder_length": 2, "time_varying_known_reals": ["price"]},
    "empty encoders": {**_COVARIATES, "min_encoder_length": 0},
    "variable decoders": {"min_prediction_length": 1, "time_varying_known_reals": ["price"]},
    "all lengths": {**_COVARIATES, "min_encoder_length": 0, "min_prediction_length": 1},
    "random lengths": {**_COVARIATES, "min_encoder_length": 0, "randomize_length": True},
    "horizon of one": {**_COVARIATES, "max_prediction_length": 1},
    "history of one": {**_COVARIATES, "max_encoder_length": 1},
    "one step each": {"max_encoder_length": 1, "max_prediction_length": 1},
    "horizon beyond history": {"max_encoder_length": 3, "max_prediction_length": 7},
    "gaps": {"table": make_gaps(make_table()), "allow_missing_timesteps": True, **_COVARIATES},
    "filled gaps": {
        "table": make_gaps(make_table()),
        "allow_missing_timesteps": True,
        "min_encoder_length": 4,
        "constant_fill_strategy": {"y": 0.0},
    },
    # normalizers
    "auto normalizer": {"target_normalizer": "auto"},
    "no normalizer": {"target_normalizer": None},
    "one group normalizer": {"target_normalizer": GroupNormalizer()},
    "scaled by group": {
        "group_ids": ["region", "series"],
        "target_normalizer": GroupNormalizer(groups=["region", "series"], scale_by_group=True),
    },
    "torch normalizer": {"target_normalizer": TorchNormalizer()},
    "robust normalizer": {"target_normalizer": TorchNormalizer("robust", center=False)},
    "encoder normalizer": {"target_normalizer": EncoderNormalizer(), "min_encoder_length": 2},
    "short encoder normalizer": {"target_normalizer": EncoderNormalizer("robust", max_length=5)},
    "log": with_target("volume", GroupNormalizer(transformation="log")),
    "log1p": with_target("volume", EncoderNormalizer(transformation="log1p")),
    "logit": with_target("share", TorchNormalizer(transformation="logit")),
    "count": with_target("count", GroupNormalizer(transformation="count", center=False)),
    "softplus": with_target("y", EncoderNormalizer(transformation="softplus")),
    "relu": with_target("y", GroupNormalizer(transformation="relu")),
    "sqrt": with_target("volume", TorchNormalizer(transformation="sqrt")),
    "custom transformation": with_target(
        "volume", EncoderNormalizer(transformation={"forward": torch.log1p, "reverse": torch.expm1})
    ),
    # targets
    "whole numbers": with_target("whole", GroupNormalizer()),
    "list of one target": {"target": ["y"], "target_normalizer": "auto"},
    "two targets": _REAL_TARGETS,
    "two targets with weights and lags": {
        **_REAL_TARGETS,
        "target_normalizer": MultiNormalizer([EncoderNormalizer(), GroupNormalizer()]),
        "weight": "weight",
        "lags": {"y": [2], "signed": [5]},
        "min_encoder_length": 2,
        "min_prediction_length": 1,
    },
    "categorical target": {
        "target": "label",
        "time_varying_unknown_categoricals": ["label"],
        "time_varying_unknown_reals": ["noise"],
        "target_normalizer": "auto",
        "min_prediction_length": 2,
    },
    "categorical target alone": {
        "target": "label",
        "time_varying_unknown_reals": [],
        "target_normalizer": NaNLabelEncoder(),
    },
    "list of one categorical target": {
        "target": ["label"],
        "time_varying_unknown_reals": [],
        "time_varying_unknown_categoricals": ["label"],
        "target_normalizer": "auto",
    },
    "mixed targets": _MIXED_TARGETS,
    "mixed targets and covariates": {
        **_COVARIATES,
        **_MIXED_TARGETS,
        "time_varying_unknown_reals": ["y", "noise"],
        "time_varying_unknown_categoricals": ["label", "state"],
        "min_encoder_length": 2,
        "min_prediction_length": 1,
    },
}


_SHARED: dict[str, TimeSeriesDataSet] = {}


def shared_dataset(**changes: Any) -> TimeSeriesDataSet:
    """Return a cached dataset of the standard table; do not change it."""
    assert "table" not in changes
    key = repr(changes)
    if key not in _SHARED:
        _SHARED[key] = make_dataset(**changes)
    return _SHARED[key]


@cache
def configured(name: str) -> TimeSeriesDataSet:
    """Return the cached dataset of a configuration; do not change it."""
    return make_dataset(**CONFIGURATIONS[name])


def pick_samples(dataset: TimeSeriesDataSet, count: int = 5) -> list[Sample]:
    """Pick samples across a dataset, including the shortest and the longest."""
    lengths = dataset.index["sequence_length"].to_numpy()
    evenly_spaced = np.linspace(0, len(dataset) - 1, count).astype(int)
    indices = [int(lengths.argmin()), *evenly_spaced.tolist(), int(lengths.argmax())]
    return [dataset[index] for index in dict.fromkeys(indices)]


def collate(samples: Sequence[Sample], dtype: torch.dtype = torch.float64) -> Batch:
    """Collate samples into a batch, as a loader does, with all reals in ``dtype``."""
    return convert(TimeSeriesDataSet._collate_fn(list(samples)), dtype)


def convert(batch: Any, dtype: torch.dtype) -> Any:
    """Copy a batch, with all reals in ``dtype``."""
    if isinstance(batch, torch.Tensor):
        return batch.to(dtype, copy=True) if batch.is_floating_point() else batch.clone()
    if isinstance(batch, dict):
        return {name: convert(part, dtype) for name, part in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(convert(part, dtype) for part in batch)
    return batch


#: Arguments of a Trainer that writes no files and prints nothing.
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def fit(
    model: LightningModule,
    dataset: TimeSeriesDataSet,
    steps: int = 2,
    batch_size: int = 16,
    **changes: Any,
) -> Trainer:
    """Train for a few steps, and validate on one batch at the end of every epoch."""
    training, validation = (
        dataset.to_dataloader(train=train, batch_size=batch_size, num_workers=0)
        for train in (True, False)
    )
    arguments = {
        **QUIET,
        "max_steps": steps,
        "max_epochs": -1,
        "limit_train_batches": min(steps, len(training)),
        "limit_val_batches": 1,
        "num_sanity_val_steps": 0,
        "enable_checkpointing": False,
        **changes,
    }
    trainer = Trainer(**arguments)
    trainer.fit(model, training, validation)
    return trainer
