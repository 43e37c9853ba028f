"""Missing values, as NaN: in real targets, and in real variables that vary with time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.api import types
from pytorch_forecasting.data import MultiNormalizer, NaNLabelEncoder, TorchNormalizer
from torch import Tensor

from .._messages import format_series
from .windows import IntArray

__all__ = [
    "SeriesFallback",
    "check_some_observed",
    "check_values",
    "fit_to_observed",
    "fix_data_properties",
    "missing_names",
    "nullable_to_float",
    "optional_names",
]


def optional_names(dataset: Any) -> list[str]:
    """List the real variables and targets that may be missing: those that vary with time."""
    targets = [
        name
        for name, normalizer in zip(dataset.target_names, dataset.target_normalizers, strict=True)
        if not isinstance(normalizer, NaNLabelEncoder)
    ]
    varying = [*dataset._time_varying_known_reals, *dataset._time_varying_unknown_reals]
    return list(dict.fromkeys([*targets, *varying]))


def missing_names(dataset: Any) -> list[str]:
    """List the real variables and targets of a dataset that are missing in some row."""
    targets = zip(dataset.target_names, dataset.data["target"], strict=True)
    names = [name for name, values in targets if values.isnan().any()]
    columns = dataset.data["reals"].isnan().any(0).tolist()
    names += [name for name, missing in zip(dataset.reals, columns, strict=True) if missing]
    return list(dict.fromkeys(names))


def fix_data_properties(properties: dict[str, Any], data: pd.DataFrame) -> dict[str, Any]:
    """Correct what pytorch-forecasting finds of a target: it takes a missing value for negative."""
    for name in properties["target_positive"]:
        observed = data[name].dropna()
        positive = bool((observed > 0).all())
        properties["target_positive"][name] = positive
        if positive:
            properties["target_skew"][name] = observed.skew()
    return properties


def nullable_to_float(data: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Convert columns of pandas' nullable numbers, in which a missing value is not NaN."""
    converted = {
        name: data[name].to_numpy(float, na_value=np.nan)
        for name in names
        if name in data and types.is_extension_array_dtype(data[name]) and data[name].isna().any()
    }
    return data.assign(**converted) if converted else data


@contextmanager
def fit_to_observed(dataset: Any) -> Iterator[None]:
    """Fit normalizers and scalers to the rows that are not missing, while a dataset is built.

    Scalers of scikit-learn do so by themselves. Those of pytorch-forecasting would become NaN, and
    a series without any value would get no scale instead of the median one.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        Dataset that is being built.
    """
    target = dataset.target_normalizer
    parts = list(target.normalizers) if isinstance(target, MultiNormalizer) else [target]
    wrapped = {
        id(part): part
        for part in (*parts, *dataset._scalers.values())
        if isinstance(part, TorchNormalizer) and not isinstance(part, MultiNormalizer)
    }
    for part in wrapped.values():
        part.fit = _ObservedFit(part)
    try:
        yield
    finally:
        for part in wrapped.values():
            part.__dict__.pop("fit", None)


def check_some_observed(dataset: Any, data: pd.DataFrame) -> None:
    """Raise if nothing is left of a column that a normalizer or scaler is to be fitted to."""
    normalizers = dict(zip(dataset.target_names, dataset.target_normalizers, strict=True))
    for name in optional_names(dataset):
        if name in dataset.lagged_variables or not len(data) or not data[name].isna().all():
            continue
        scaler = normalizers.get(name, dataset._scalers.get(name))
        fitted = [part for part in vars(scaler) if part.endswith("_")] if scaler else []
        if not fitted:
            raise ValueError(
                f"{type(dataset).__name__}: column {name!r} must have a value in some row, got NaN "
                f"in all {len(data)}; correct the table."
            )


class _ObservedFit:
    """Fits a normalizer to the rows that are not missing.

    Parameters
    ----------
    normalizer : TorchNormalizer
        The normalizer.
    """

    def __init__(self, normalizer: Any) -> None:
        self._normalizer = normalizer

    def __call__(self, y: Any, X: pd.DataFrame | None = None) -> Any:
        """Fit to the values of a column, and to those of the groups."""
        fit = type(self._normalizer).fit
        if isinstance(y, pd.DataFrame):  # of one column, for which each row would have its own mean
            y = y.iloc[:, 0]
        missing = np.asarray(pd.isna(y)).reshape(len(y), -1).any(1)
        if missing.all() or not missing.any():
            return fit(self._normalizer, y) if X is None else fit(self._normalizer, y, X)
        observed = y[~missing]
        return (
            fit(self._normalizer, observed)
            if X is None
            else fit(self._normalizer, observed, X[~missing])
        )


def check_values(dataset: Any, tensors: dict[str, Any]) -> None:
    """Raise if a value of a dataset is infinite, or missing where it may not be.

    Parameters
    ----------
    dataset : BatchedTimeSeriesDataSet
        Names of the variables.
    tensors : dict
        Its data.

    Raises
    ------
    ValueError
        With column, series and time of the first such value.
    """
    optional = optional_names(dataset)
    columns = list(zip(dataset.target_names, tensors["target"], strict=True))
    columns += zip(dataset.reals, tensors["reals"].unbind(1), strict=True)
    if tensors["weight"] is not None:
        columns.append((dataset.weight, tensors["weight"]))
    for name, values in columns:
        if not values.is_floating_point():
            continue
        invalid = values.isinf() if name in optional else ~values.isfinite()
        if invalid.any():
            rule = "a finite number or NaN" if name in optional else "a finite number"
            _raise_invalid(dataset, tensors, name, values, invalid, rule)


def _raise_invalid(
    dataset: Any, tensors: dict[str, Any], name: str, values: Tensor, invalid: Tensor, rule: str
) -> None:
    row = int(invalid.int().argmax())
    labels = [
        dataset.transform_values(
            group, tensors["groups"][row : row + 1, column].numpy(), inverse=True, group_id=True
        ).tolist()[0]
        for column, group in enumerate(dataset.group_ids)
    ]
    raise ValueError(
        f"{type(dataset).__name__}: column {name!r} must hold {rule} in every row, got "
        f"{values[row].item()} for {format_series(dataset.group_ids, labels)} at "
        f"{dataset.time_idx}={int(tensors['time'][row])} ({int(invalid.sum())} of {len(values)} "
        f"rows); fill it in or drop these rows: only targets and real variables that vary with "
        f"time may be missing, as NaN."
    )


class SeriesFallback:
    """Scales of whole series, for windows in which too few values are observed.

    Parameters
    ----------
    dataset : BatchedTimeSeriesDataSet
        The dataset, with missing values.
    """

    def __init__(self, dataset: Any) -> None:
        self._data, self._names = dataset.data, (dataset.target_names, dataset.reals)
        self._scales: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    @classmethod
    def of(cls, dataset: Any) -> "SeriesFallback | None":
        """Return the scales of a dataset, or None if it has no missing values."""
        tensors = [dataset.data["reals"], *dataset.data["target"]]
        # Tensors created in inference mode have no version counter.
        versions = [None if part.is_inference() else part._version for part in tensors]
        cached = dataset.__dict__.get("_series_fallback")
        unchanged = cached is not None and cached[1] == versions
        if not (unchanged and all(a is b for a, b in zip(cached[0], tensors, strict=True))):
            cached = tensors, versions, cls(dataset) if _has_missing(dataset) else None
            dataset.__dict__["_series_fallback"] = cached
        return cached[2]

    def fill(self, scales: Tensor, normalizer: Any, name: str, rows: IntArray) -> Tensor:
        """Replace scales that are NaN.

        Parameters
        ----------
        scales : Tensor
            Center and scale of each window, shape ``(B, 2)``.
        normalizer : EncoderNormalizer
            Its settings.
        name : str
            The target or variable.
        rows : ndarray of int
            First row of each window, shape ``(B,)``.

        Returns
        -------
        Tensor
            Where they were NaN, those of the series; where that has fewer than two values, those of
            all series.
        """
        undefined = scales.isnan()
        if not undefined.any():
            return scales
        windows = undefined.any(1).nonzero().squeeze(1)
        filled = scales.clone()
        for window in windows.tolist():
            whole = self._series(normalizer, name, int(rows[window])).to(scales)
            filled[window] = torch.where(undefined[window], whole, scales[window])
        return filled

    def _series(self, normalizer: Any, name: str, row: int) -> Tensor:
        groups = self._data["groups"]
        key = name, tuple(groups[row].tolist())
        if key not in self._scales:
            targets, reals = self._names
            column = (
                self._data["target"][targets.index(name)]
                if name in targets
                else self._data["reals"][:, reals.index(name)]
            )
            scale = _fit_column(normalizer, column[(groups == groups[row]).all(1)])
            if scale is None:
                scale = _fit_column(normalizer, column)
            self._scales[key] = column.new_full((2,), torch.nan) if scale is None else scale
        return self._scales[key]


def _has_missing(dataset: Any) -> bool:
    """Return whether a value of a dataset is missing, or a gap is filled with NaN."""
    fills = dataset.encoded_constant_fill_strategy.values()
    return bool(missing_names(dataset)) or bool(np.isnan(np.array(list(map(_number, fills)))).any())


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def _fit_column(normalizer: Any, values: Tensor) -> Tensor | None:
    """Fit the settings of a normalizer to the values of a column, if there are at least two."""
    observed = values[~values.isnan()]
    if len(observed) < 2:
        return None
    whole = TorchNormalizer(
        method=normalizer.method,
        center=normalizer.center,
        transformation=normalizer.transformation,
        method_kwargs=normalizer.method_kwargs,
    )
    return whole.fit(observed).get_parameters()
