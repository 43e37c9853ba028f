"""Target scales by series, computed once for all series of the data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pytorch_forecasting.data import GroupNormalizer
from torch import Tensor

from .windows import IntArray


def series_starts(groups: Tensor) -> IntArray:
    """Return the first row of every series.

    Parameters
    ----------
    groups : Tensor
        Encoded group ids of every row of the data, shape ``(N, G)``. The rows of a series are
        adjacent.
    """
    changes = (groups[1:] != groups[:-1]).any(1).nonzero().squeeze(1) + 1
    return np.concatenate([[0], changes.numpy()])


class SeriesScales:
    """Center and scale of each series, looked up by any row of the series.

    Parameters
    ----------
    normalizer : TorchNormalizer or NaNLabelEncoder
        Fitted normalizer.
    groups : Tensor
        Encoded group ids of every row of the data, shape ``(N, G)``. The rows of a series are
        adjacent.
    group_names : sequence of str
        Names of the columns of ``groups``.
    """

    def __init__(self, normalizer: Any, groups: Tensor, group_names: Sequence[str]):
        self._source = _identity(normalizer, groups)
        self._first_rows = series_starts(groups)
        self._scales = _scales(normalizer, groups[self._first_rows], group_names)

    def is_current(self, normalizer: Any, groups: Tensor) -> bool:
        """Return whether the scales match this normalizer and these data in their current state."""
        *objects, version = _identity(normalizer, groups)
        *source_objects, source_version = self._source
        return source_version == version and all(
            old is new for old, new in zip(source_objects, objects, strict=True)
        )

    def lookup(self, rows: IntArray) -> Tensor:
        """Look up the scales of the series that rows belong to.

        Parameters
        ----------
        rows : ndarray of int
            Rows of the data, shape ``(B,)``.

        Returns
        -------
        Tensor
            Center and scale, shape ``(B, 2)``; float32, or the dtype of the normalizer if it gives
            tensors.
        """
        series = np.searchsorted(self._first_rows, rows, side="right") - 1
        return self._scales[torch.from_numpy(series)]


def _identity(normalizer: Any, groups: Tensor) -> tuple[Any, ...]:
    """List the objects that the scales depend on, and the version of the groups."""
    # Fitting a normalizer again replaces these objects, and so does assignment.
    fitted = (
        getattr(normalizer, name, None) for name in ("norm_", "missing_", "center_", "scale_")
    )
    # Tensors created in inference mode have no version counter.
    return normalizer, *fitted, groups, None if groups.is_inference() else groups._version


def _scales(normalizer: Any, series: Tensor, group_names: Sequence[str]) -> Tensor:
    if type(normalizer) is GroupNormalizer and _matches_by_position(normalizer, group_names):
        return torch.from_numpy(
            _group_parameters(normalizer, series.numpy(), group_names).astype(np.float32)
        )
    parameters = [normalizer.get_parameters(groups, group_names) for groups in series]
    if isinstance(parameters[0], Tensor):
        return torch.stack(parameters)
    return torch.from_numpy(np.array(parameters, dtype=np.float32))


def _matches_by_position(normalizer: Any, group_names: Sequence[str]) -> bool:
    # With fewer groups than the dataset has, `GroupNormalizer.get_parameters` still looks up the
    # ids of all groups. In that case it is called instead of being reproduced here.
    return normalizer.scale_by_group or len(normalizer._groups) in (0, len(group_names))


def _group_parameters(
    normalizer: Any, series: IntArray, group_names: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Compute `GroupNormalizer.get_parameters` for all series at once."""
    norm, names = normalizer.norm_, [n for n in group_names if n in normalizer._groups]
    assert len(names) == len(normalizer._groups), "Passed groups and fitted do not match"
    if not names:
        return np.tile([norm["center"], norm["scale"]], (len(series), 1))
    if not normalizer.scale_by_group:
        keys = (
            pd.MultiIndex.from_arrays(list(series.T))
            if isinstance(norm.index, pd.MultiIndex)
            else pd.Index(series[:, 0])
        )
        return _lookup(norm, keys, normalizer.missing_)
    product = np.ones((len(series), 2))
    for column, name in enumerate(names):
        keys = pd.Index(series[:, column])
        product = product * _lookup(norm[name], keys, normalizer.missing_[name])
    return np.power(product, 1.0 / len(names))


def group_norm(normalizer: Any, keys: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """Compute `GroupNormalizer.get_norm` from arrays.

    Parameters
    ----------
    normalizer : GroupNormalizer
        Fitted normalizer.
    keys : sequence of ndarray
        Values of its groups, each of shape ``(N,)``.

    Returns
    -------
    ndarray
        Center and scale, shape ``(N, 2)``, or ``(1, 2)`` if the normalizer has no groups.
    """
    norm = normalizer.norm_
    if not keys:
        return np.array([[norm["center"], norm["scale"]]], dtype=np.float64)
    missing = normalizer.missing_
    if normalizer.scale_by_group:
        parts = [
            _lookup(norm[name], pd.Index(column), missing[name], fill=True)
            for name, column in zip(normalizer._groups, keys, strict=True)
        ]
        return np.power(np.prod(parts, axis=0), 1.0 / len(parts))
    multiple = isinstance(norm.index, pd.MultiIndex)
    index = pd.MultiIndex.from_arrays(list(keys)) if multiple else pd.Index(keys[0])
    return _lookup(norm, index, missing, fill=True)


def _lookup(
    norm: pd.DataFrame, keys: pd.Index, missing: dict[str, float], fill: bool = False
) -> npt.NDArray[np.float64]:
    """Look up the rows of ``norm`` by key, with ``missing`` in place of unknown keys.

    With ``fill``, it also replaces scales that are NaN.
    """
    positions = norm.index.get_indexer(keys)
    default = np.array([missing["center"], missing["scale"]])
    found = norm.to_numpy()[positions]
    unknown = (positions < 0)[:, None]
    return np.where(unknown | np.isnan(found) if fill else unknown, default, found)
