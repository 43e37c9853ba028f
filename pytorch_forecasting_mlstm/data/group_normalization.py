"""Target scales that belong to a series: looked up once for every series of the data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pytorch_forecasting.data.encoders import GroupNormalizer
from torch import Tensor

from .windows import IntArray


class SeriesScales:
    """Parameters of a normalizer for each series, by the row of the data.

    Parameters
    ----------
    normalizer : TorchNormalizer or NaNLabelEncoder
        fitted normalizer
    groups : Tensor
        encoded group ids of every row of the data, shape ``(N, G)``; series lie one after another
    group_names : sequence of str
        names of the columns of ``groups``
    """

    def __init__(self, normalizer: Any, groups: Tensor, group_names: Sequence[str]):
        self._source = _identity(normalizer, groups)
        begins = (groups[1:] != groups[:-1]).any(1).nonzero().squeeze(1) + 1
        self._first_rows: IntArray = np.concatenate([[0], begins.numpy()])
        self._scales = _scales(normalizer, groups[self._first_rows], group_names)

    def still_hold(self, normalizer: Any, groups: Tensor) -> bool:
        """Tell whether normalizer and data are those that the scales were taken from."""
        *objects, version = _identity(normalizer, groups)
        *sources, then = self._source
        return then == version and all(
            old is new for old, new in zip(sources, objects, strict=True)
        )

    def of(self, rows: IntArray) -> Tensor:
        """Look up the scales of the series that rows belong to.

        Parameters
        ----------
        rows : ndarray of int
            rows of the data, shape ``(B,)``

        Returns
        -------
        Tensor
            shape ``(B, 2)``; float32, or the dtype of the normalizer where it gives tensors
        """
        series = np.searchsorted(self._first_rows, rows, side="right") - 1
        return self._scales[torch.from_numpy(series)]


def _identity(normalizer: Any, groups: Tensor) -> tuple[Any, ...]:
    # To fit a normalizer again gives it new objects, as does assignment.
    fitted = (
        getattr(normalizer, name, None) for name in ("norm_", "missing_", "center_", "scale_")
    )
    # what is made in inference mode counts no changes
    return normalizer, *fitted, groups, None if groups.is_inference() else groups._version


def _scales(normalizer: Any, series: Tensor, group_names: Sequence[str]) -> Tensor:
    if type(normalizer) is GroupNormalizer and _reads_by_position(normalizer, group_names):
        return torch.from_numpy(
            _group_parameters(normalizer, series.numpy(), group_names).astype(np.float32)
        )
    parameters = [normalizer.get_parameters(groups, group_names) for groups in series]
    if isinstance(parameters[0], Tensor):
        return torch.stack(parameters)
    return torch.from_numpy(np.array(parameters, dtype=np.float32))


def _reads_by_position(normalizer: Any, group_names: Sequence[str]) -> bool:
    # With fewer groups than the dataset has, `GroupNormalizer.get_parameters` still looks up the
    # ids of all groups: its answer is left to itself.
    return normalizer.scale_by_group or len(normalizer._groups) in (0, len(group_names))


def _group_parameters(
    normalizer: Any, series: IntArray, group_names: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Do what `GroupNormalizer.get_parameters` does, for all series at once."""
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
        return _rows(norm, keys, normalizer.missing_)
    product = np.ones((len(series), 2))
    for column, name in enumerate(names):
        keys = pd.Index(series[:, column])
        product = product * _rows(norm[name], keys, normalizer.missing_[name])
    return np.power(product, 1.0 / len(names))


def _rows(norm: pd.DataFrame, keys: pd.Index, missing: dict[str, float]) -> npt.NDArray[np.float64]:
    found = norm.index.get_indexer(keys)
    absent = np.array([missing["center"], missing["scale"]])
    return np.where((found < 0)[:, None], absent, norm.to_numpy()[found])
