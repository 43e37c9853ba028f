"""Tables and dataset arguments for the parity tests.

A configuration creates its arguments on every call, since datasets fit normalizers in place.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_forecasting.data import TimeSeriesDataSet
from pytorch_forecasting.data.encoders import (
    EncoderNormalizer,
    GroupNormalizer,
    MultiNormalizer,
    NaNLabelEncoder,
    TorchNormalizer,
)
from sklearn.preprocessing import RobustScaler, StandardScaler


@cache
def panel(seed: int = 0, *, gaps: float = 0.0, lengths: tuple[int, ...] = (24, 20, 26, 19)):
    """Make series of different lengths and starts, with a column for every kind of variable.

    Parameters
    ----------
    seed : int
        Seed of the random numbers.
    gaps : float
        Share of missing steps. The first and the last step of a series are never missing.
    lengths : tuple of int
        Number of steps of each series.

    Returns
    -------
    DataFrame
        Cached: do not change it.
    """
    generator = np.random.default_rng(seed)
    parts = []
    for number, length in enumerate(lengths):
        time = np.arange(length) + 3 * number
        parts.append(
            pd.DataFrame(
                {
                    "shop": f"shop {number // 2}",
                    "product": f"product {number % 2}",
                    "time": time,
                    "y": 50 + 10 * number + np.sin(time / 3) + generator.normal(size=length),
                    "signed": generator.normal(number, 2, size=length),
                    "count": generator.poisson(20, size=length),
                    "state": generator.choice(["low", "mid", "high"], size=length),
                    "price": generator.uniform(1, 3, size=length),
                    "rain": generator.gamma(2.0, size=length),
                    "size": float(number + 1),
                    "region": ["north", "south"][number % 2],
                    "day": np.array(["mon", "tue", "wed"])[time % 3],
                    "sky": generator.choice(["clear", "gray"], size=length),
                    "holiday_a": np.where(time % 7 == 0, "easter", "-"),
                    "holiday_b": np.where(time % 11 == 0, "may", "-"),
                    "weight": generator.uniform(0.5, 2, size=length),
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    if gaps:
        ends = table.groupby(["shop", "product"])["time"].transform
        inner = (table["time"] > ends("min")) & (table["time"] < ends("max"))
        table = table[~(inner & (generator.random(len(table)) < gaps))].reset_index(drop=True)
    return table


def sparse() -> pd.DataFrame:
    """Make the panel with a third of the steps missing."""
    return panel(gaps=0.33)


def shuffled() -> pd.DataFrame:
    """Make the panel with its rows in random order."""
    return panel().sample(frac=1.0, random_state=1)


@dataclass(frozen=True)
class Configuration:
    """The arguments of one dataset.

    Parameters
    ----------
    name : str
        The feature that it tests.
    settings : callable
        Returns the arguments that differ from the defaults below.
    table : callable
        Returns the data.
    modes : tuple of str
        Uses of the dataset in the parity tests.
    """

    name: str
    settings: Callable[[], dict[str, Any]]
    table: Callable[[], pd.DataFrame] = panel
    modes: tuple[str, ...] = ("train", "validation", "predict")

    def build(self, cls: type[TimeSeriesDataSet]) -> TimeSeriesDataSet:
        """Return a copy of the training dataset, which is built once."""
        return copy.deepcopy(_built(self, cls))

    def derive(self, training: TimeSeriesDataSet, mode: str) -> TimeSeriesDataSet:
        """Build the dataset of a mode from the training dataset."""
        if mode == "train":
            return training
        options = dict(predict=True) if mode == "predict" else dict(min_prediction_idx=16)
        return type(training).from_dataset(
            training, self.table(), stop_randomization=True, **options
        )

    def __str__(self) -> str:
        return self.name


@cache
def _built(configuration: Configuration, cls: type[TimeSeriesDataSet]) -> TimeSeriesDataSet:
    defaults: dict[str, Any] = dict(
        time_idx="time",
        target="y",
        group_ids=["shop", "product"],
        max_encoder_length=9,
        max_prediction_length=4,
        time_varying_unknown_reals=["y"],
    )
    return cls(configuration.table(), **(defaults | configuration.settings()))


def _covariates() -> dict[str, Any]:
    return dict(
        static_categoricals=["region"],
        static_reals=["size"],
        time_varying_known_categoricals=["day"],
        time_varying_known_reals=["time", "price"],
        time_varying_unknown_categoricals=["sky"],
        time_varying_unknown_reals=["y", "rain"],
    )


def _variable_lengths() -> dict[str, Any]:
    return dict(min_encoder_length=2, min_prediction_length=1)


def _gaps() -> dict[str, Any]:
    return dict(allow_missing_timesteps=True) | _covariates() | _variable_lengths()


def _everything() -> dict[str, Any]:
    return (
        _covariates()
        | _variable_lengths()
        | dict(
            weight="weight",
            lags={"y": [2, 5], "price": [1]},
            add_relative_time_idx=True,
            add_target_scales=True,
            add_encoder_length=True,
            variable_groups={"holidays": ["holiday_a", "holiday_b"]},
            time_varying_known_categoricals=["day", "holidays"],
            categorical_encoders={
                "sky": NaNLabelEncoder(add_nan=True),
                "holidays": NaNLabelEncoder(add_nan=True),
            },
            target_normalizer=EncoderNormalizer(),
            scalers={"rain": EncoderNormalizer(), "price": EncoderNormalizer(method="robust")},
        )
    )


def _target_normalizer(
    make_normalizer: Callable[[], Any], **settings: Any
) -> Callable[[], dict[str, Any]]:
    return lambda: dict(target_normalizer=make_normalizer()) | settings


def _double(x: Any) -> Any:
    return x.double() if isinstance(x, torch.Tensor) else x


def _encoder_normalizers() -> list[Configuration]:
    kinds: dict[str, Callable[[], EncoderNormalizer]] = {
        "standard": EncoderNormalizer,
        "uncentered": lambda: EncoderNormalizer(center=False),
        "robust": lambda: EncoderNormalizer(method="robust"),
        "robust with other quantiles": lambda: EncoderNormalizer(
            method="robust", method_kwargs=dict(lower=0.1, center=0.4, upper=0.8)
        ),
        "identity": lambda: EncoderNormalizer(method="identity"),
        "max_length": lambda: EncoderNormalizer(max_length=3),
        "max_length longer for the center": lambda: EncoderNormalizer(max_length=[6, 3]),
        "max_length longer for the scale": lambda: EncoderNormalizer(max_length=[2, 5]),
        "robust with max_length": lambda: EncoderNormalizer(method="robust", max_length=[2, 5]),
        "custom transformation": lambda: EncoderNormalizer(
            transformation=dict(forward=lambda x: x**0.3, reverse=lambda x: x ** (1 / 0.3))
        ),
        "custom transformation to float64": lambda: EncoderNormalizer(
            transformation=dict(forward=_double, reverse=lambda x: x)
        ),
        **{
            transformation: lambda transformation=transformation: EncoderNormalizer(
                transformation=transformation
            )
            for transformation in ("log", "log1p", "relu", "softplus", "count", "sqrt")
        },
    }
    return [
        Configuration(
            f"EncoderNormalizer, {name}, {lengths}",
            _target_normalizer(make_normalizer, **settings),
            modes=("train",),
        )
        for name, make_normalizer in kinds.items()
        for lengths, settings in {
            "fixed lengths": {},
            "variable lengths": dict(min_encoder_length=3, min_prediction_length=1),
        }.items()
    ]


def _group_normalizers() -> list[Configuration]:
    groups = ["shop", "product"]
    kinds: dict[str, Callable[[], Any]] = {
        "by all groups": lambda: GroupNormalizer(groups=groups),
        "by all groups, in another order": lambda: GroupNormalizer(groups=groups[::-1]),
        "by one of two groups": lambda: GroupNormalizer(groups=["shop"]),
        "without groups": GroupNormalizer,
        "robust": lambda: GroupNormalizer(groups=groups, method="robust"),
        "uncentered": lambda: GroupNormalizer(groups=groups, center=False),
        "scaled by group": lambda: GroupNormalizer(groups=groups, scale_by_group=True),
        "scaled by one group": lambda: GroupNormalizer(groups=["product"], scale_by_group=True),
        "softplus": lambda: GroupNormalizer(groups=groups, transformation="softplus"),
    }
    return [
        Configuration(
            f"GroupNormalizer, {name}",
            _target_normalizer(make_normalizer),
            modes=("train", "predict"),
        )
        for name, make_normalizer in kinds.items()
    ]


CONFIGURATIONS: list[Configuration] = [
    Configuration("defaults", dict),
    Configuration("rows in random order", dict, shuffled),
    Configuration(
        "encoders above 20 steps",
        lambda: dict(max_encoder_length=21),
        lambda: panel(lengths=(31, 27, 36, 25)),
    ),
    Configuration("covariates of all kinds", _covariates),
    Configuration("no input at all", lambda: dict(time_varying_unknown_reals=[])),
    Configuration("target is no input", lambda: dict(time_varying_unknown_reals=["rain"])),
    Configuration("one step ahead", lambda: dict(max_prediction_length=1)),
    Configuration("one series", dict, lambda: panel(lengths=(40,))),
    Configuration("variable lengths", lambda: _covariates() | _variable_lengths()),
    Configuration(
        "variable encoders only", lambda: dict(min_encoder_length=1, add_relative_time_idx=True)
    ),
    Configuration("variable decoders only", lambda: dict(min_prediction_length=1)),
    Configuration(
        "encoders down to nothing",
        lambda: _covariates() | dict(min_encoder_length=0, target_normalizer=GroupNormalizer()),
    ),
    Configuration(
        "encoders of nothing alone",
        lambda: dict(max_encoder_length=0, target_normalizer=GroupNormalizer()),
    ),
    Configuration(
        "relative time index",
        lambda: dict(add_relative_time_idx=True, min_encoder_length=2),
    ),
    Configuration("encoder length", lambda: dict(add_encoder_length=True)),
    Configuration("weights", lambda: dict(weight="weight")),
    Configuration("weights, variable lengths", lambda: dict(weight="weight") | _variable_lengths()),
    Configuration(
        "variable groups",
        lambda: dict(
            variable_groups={"holidays": ["holiday_a", "holiday_b"]},
            time_varying_known_categoricals=["holidays", "day"],
        ),
    ),
    Configuration(
        "lags",
        lambda: dict(
            lags={"y": [1, 5], "rain": [3], "day": [2]},
            time_varying_known_categoricals=["day"],
            time_varying_unknown_reals=["y", "rain"],
            scalers={"rain": None},
        ),
    ),
    Configuration(
        "lags of variables scaled by encoders",
        lambda: (
            dict(
                lags={"y": [1, 5], "rain": [3]},
                time_varying_unknown_reals=["y", "rain"],
                target_normalizer=EncoderNormalizer(transformation="relu"),
                scalers={"rain": EncoderNormalizer(method="robust")},
            )
            | _variable_lengths()
        ),
    ),
    Configuration("target in a list", lambda: dict(target=["y"])),
    Configuration(
        "several targets",
        lambda: dict(target=["y", "signed"], time_varying_unknown_reals=["signed", "y"]),
    ),
    Configuration(
        "several targets, several normalizers",
        lambda: dict(
            target=["y", "signed", "rain"],
            target_normalizer=MultiNormalizer(
                [EncoderNormalizer(), TorchNormalizer(), GroupNormalizer()]
            ),
            time_varying_unknown_reals=["rain", "y"],
            min_encoder_length=3,
            add_target_scales=True,
            lags={"y": [2]},
        ),
    ),
    Configuration(
        "several targets, one normalizer",
        lambda: dict(
            target=["y", "signed"],
            target_normalizer=MultiNormalizer([shared := EncoderNormalizer(), shared]),
            time_varying_unknown_reals=["signed", "y"],
            lags={"y": [2], "signed": [3]},
        ),
    ),
    Configuration(
        "categorical target",
        lambda: dict(
            target="state",
            time_varying_unknown_reals=[],
            time_varying_unknown_categoricals=["state"],
        ),
    ),
    Configuration(
        "categorical target with lags",
        lambda: dict(
            target="state",
            time_varying_unknown_reals=["y"],
            time_varying_unknown_categoricals=["state"],
            lags={"state": [1, 6]},
        ),
    ),
    Configuration(
        "mixed targets",
        lambda: dict(
            target=["state", "y"],
            target_normalizer=MultiNormalizer([NaNLabelEncoder(), EncoderNormalizer()]),
            time_varying_unknown_categoricals=["state"],
        ),
    ),
    Configuration(
        "counts",
        lambda: dict(
            target="count",
            target_normalizer=GroupNormalizer(groups=["shop", "product"]),
            time_varying_unknown_reals=["count"],
        ),
    ),
    Configuration(
        "counts scaled by encoders",
        lambda: dict(
            target="count",
            target_normalizer=EncoderNormalizer(transformation="log1p"),
            time_varying_unknown_reals=["count"],
            min_encoder_length=3,
        ),
    ),
    *_encoder_normalizers(),
    *_group_normalizers(),
    Configuration("no normalizer", _target_normalizer(lambda: None)),
    Configuration("TorchNormalizer", _target_normalizer(TorchNormalizer)),
    Configuration(
        "TorchNormalizer, robust", _target_normalizer(lambda: TorchNormalizer(method="robust"))
    ),
    Configuration(
        "scalers of all kinds",
        lambda: dict(
            time_varying_known_reals=["time", "price"],
            time_varying_unknown_reals=["y", "rain", "signed"],
            static_reals=["size"],
            scalers={
                "time": RobustScaler(),
                "price": GroupNormalizer(groups=["shop"]),
                "rain": None,
                "size": StandardScaler(),
            },
        ),
    ),
    Configuration(
        "covariates scaled by encoders, fixed lengths",
        lambda: (
            _covariates()
            | dict(
                scalers={"rain": EncoderNormalizer(), "price": EncoderNormalizer(method="robust")},
            )
        ),
    ),
    Configuration(
        "covariates scaled by encoders, variable lengths",
        lambda: (
            _covariates()
            | dict(
                min_encoder_length=2,
                min_prediction_length=1,
                scalers={"rain": EncoderNormalizer(), "time": EncoderNormalizer(max_length=4)},
            )
        ),
    ),
    Configuration(
        "covariates that share a normalizer",
        lambda: dict(
            time_varying_unknown_reals=["y", "rain", "signed"],
            lags={"rain": [2], "signed": [1]},
            scalers=dict.fromkeys(["rain", "signed"], EncoderNormalizer()),
        ),
    ),
    *(
        Configuration(
            f"covariates with equal normalizers, {name}",
            lambda lengths=lengths: (
                _variable_lengths()
                | dict(
                    time_varying_known_reals=["time", "price"],
                    time_varying_unknown_reals=["y", "rain", "signed"],
                    min_encoder_length=3,
                    lags={"rain": [2]},
                    target_normalizer=EncoderNormalizer(),
                    scalers={
                        "price": EncoderNormalizer(max_length=[5, 3]),
                        "signed": EncoderNormalizer(max_length=[5, 3]),
                        "rain": EncoderNormalizer(method="robust", transformation="sqrt"),
                        "time": EncoderNormalizer(method="robust", transformation="sqrt"),
                    },
                )
                | lengths
            ),
            table,
        )
        for name, lengths, table in (
            ("variable lengths", {}, panel),
            ("fixed lengths", dict(min_encoder_length=9, min_prediction_length=4), panel),
            ("random lengths", dict(randomize_length=True), panel),
            ("missing steps", dict(allow_missing_timesteps=True), sparse),
        )
    ),
    Configuration(
        "relative time index and encoder length scaled by encoders",
        lambda: dict(
            add_relative_time_idx=True,
            add_encoder_length=True,
            min_encoder_length=3,
            scalers={"relative_time_idx": EncoderNormalizer()},
        ),
    ),
    *(
        Configuration(
            f"target scales, {name}",
            lambda normalizer=normalizer: dict(
                add_target_scales=True, min_encoder_length=3, target_normalizer=normalizer()
            ),
        )
        for name, normalizer in {
            "EncoderNormalizer": EncoderNormalizer,
            "GroupNormalizer": lambda: GroupNormalizer(groups=["shop", "product"]),
            "TorchNormalizer": TorchNormalizer,
        }.items()
    ),
    Configuration("missing steps, filled forward", _gaps, sparse),
    Configuration(
        "missing steps, fixed lengths, filled forward",
        lambda: dict(allow_missing_timesteps=True, max_encoder_length=4, min_encoder_length=1),
        sparse,
    ),
    Configuration(
        "missing steps, filled with constants",
        lambda: (
            _gaps()
            | dict(
                constant_fill_strategy={
                    "y": 1.5,
                    "rain": 0.0,
                    "sky": "gray",
                    "region": "south",
                    "price": 2,
                },
                weight="weight",
                add_relative_time_idx=True,
            )
        ),
        sparse,
    ),
    Configuration(
        "missing steps, time index filled with a constant",
        lambda: _gaps() | dict(constant_fill_strategy={"time": 7.0}),
        sparse,
    ),
    Configuration(
        "missing steps, target filled that is no input",
        lambda: (
            _gaps()
            | dict(
                time_varying_unknown_reals=["rain"],
                constant_fill_strategy={"y": 2.5},
                target_normalizer=GroupNormalizer(groups=["shop", "product"]),
            )
        ),
        sparse,
    ),
    Configuration(
        "missing steps, several targets filled",
        lambda: dict(
            target=["signed", "y"],
            time_varying_unknown_reals=["y", "signed"],
            allow_missing_timesteps=True,
            min_encoder_length=2,
            constant_fill_strategy={"y": 2.5, "signed": -1.0},
        ),
        sparse,
    ),
    Configuration(
        "missing steps, scaled by encoders",
        lambda: (
            _gaps()
            | dict(
                min_encoder_length=3,
                target_normalizer=EncoderNormalizer(),
                lags={"rain": [1]},
                scalers={
                    "rain": EncoderNormalizer(),
                    "time": EncoderNormalizer(),
                    "price": EncoderNormalizer(transformation="log"),
                },
            )
        ),
        sparse,
    ),
    Configuration(
        "missing steps, one real scaled by encoders",
        lambda: dict(
            allow_missing_timesteps=True,
            min_encoder_length=2,
            time_varying_unknown_reals=["rain"],
            scalers={"rain": EncoderNormalizer()},
            target_normalizer=None,
        ),
        sparse,
    ),
    Configuration("random lengths", lambda: _covariates() | _random()),
    Configuration(
        "random lengths, equal chances", lambda: _random() | dict(randomize_length=(1, 1))
    ),
    Configuration(
        "random lengths, encoders down to nothing",
        lambda: (
            _covariates()
            | _random()
            | dict(
                min_encoder_length=0,
                target_normalizer=GroupNormalizer(),
                categorical_encoders={"sky": NaNLabelEncoder(add_nan=True)},
            )
        ),
    ),
    Configuration(
        "random lengths, missing steps",
        lambda: _gaps() | _random() | dict(constant_fill_strategy={"rain": 0.0}),
        sparse,
    ),
    Configuration(
        "random lengths, scaled by encoders",
        lambda: (
            _covariates()
            | _random()
            | dict(
                min_encoder_length=3,
                target_normalizer=EncoderNormalizer(),
                scalers={"rain": EncoderNormalizer()},
            )
        ),
    ),
    Configuration("everything", _everything),
    Configuration("everything, random lengths", lambda: _everything() | _random()),
    Configuration(
        "everything, missing steps",
        lambda: (
            _everything()
            | dict(
                allow_missing_timesteps=True,
                constant_fill_strategy={"y": 55.0, "size": 1.0, "sky": "gray"},
            )
        ),
        sparse,
    ),
    Configuration(
        "everything, missing steps, random lengths",
        lambda: _everything() | _random() | dict(allow_missing_timesteps=True),
        sparse,
    ),
]


def _random() -> dict[str, Any]:
    return dict(randomize_length=True, min_encoder_length=2, min_prediction_length=1)


def find_configuration(name: str) -> Configuration:
    """Look up a configuration by its name."""
    return next(configuration for configuration in CONFIGURATIONS if configuration.name == name)
