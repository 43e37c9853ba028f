"""The tensors of a dataset, filled column by column."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_forecasting.data import NaNLabelEncoder
from torch import Tensor

__all__ = ["store_by_row", "to_tensors"]


def store_by_row(data: dict[str, Any]) -> None:
    """Store tables row by row, so that a window is one run of memory."""
    for name in ("reals", "categoricals"):
        data[name] = data[name].contiguous()


def to_tensors(dataset: Any, data: pd.DataFrame) -> dict[str, Any]:
    """Return what ``TimeSeriesDataSet._data_to_tensors`` does, with a single copy of each column.

    pytorch-forecasting copies the columns of a tensor twice in double precision first.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        Names of the columns.
    data : DataFrame
        Preprocessed data, which keep the reals only: the other columns are freed.

    Returns
    -------
    dict
        Tensors with one row per row of the data: whole numbers as int64, others as float32. Reals
        and categoricals are stored row by row.
    """
    only_labels = isinstance(dataset.target_normalizer, NaNLabelEncoder)
    targets = [dataset.target] if only_labels else dataset.target_names
    tensors = dict(
        categoricals=_table(data, dataset.flat_categoricals, torch.long),
        groups=_table(data, dataset._group_ids, torch.long, by_row=False),
        target=[_column(data, f"__target__{name}") for name in targets],
        weight=_column(data, "__weight__"),
        time=_table(data, ["__time_idx__"], torch.long)[:, 0],
    )
    reals = dataset.reals
    dtype = torch.long if _whole(data, reals) else None
    data.drop(columns=[name for name in data if name not in reals], inplace=True)
    return dict(reals=_table(data, reals, dtype), **tensors)


def _column(data: pd.DataFrame, name: str) -> Tensor | None:
    if name not in data.columns:
        return None
    return _table(data, [name], torch.long if _whole(data, [name]) else None)[:, 0]


def _whole(data: pd.DataFrame, names: list[str]) -> bool:
    """Return whether columns hold whole numbers or truth values only."""
    return bool(names) and np.result_type(*(data[name].dtype for name in names)).kind in "bi"


def _table(
    data: pd.DataFrame, names: list[str], dtype: torch.dtype | None, by_row: bool = True
) -> Tensor:
    """Copy columns, without a copy of all of them in double precision."""
    dtype = dtype or torch.float32
    source = np.int64 if dtype is torch.long else np.float64
    if not names:  # with the strides that pytorch-forecasting gets from pandas
        return torch.tensor(data[names].to_numpy(source), dtype=dtype)
    shape = len(data), len(names)
    by_row = by_row and len(names) > 1
    tensor = (
        torch.empty(shape, dtype=dtype) if by_row else torch.empty(shape[::-1], dtype=dtype).t()
    )
    with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite, and is reported
        for column, name in zip(tensor.numpy().T, names, strict=True):
            column[:] = data[name].to_numpy(source)
    return tensor
