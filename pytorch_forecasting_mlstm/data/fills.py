"""Values for steps that the data lack, and for histories without any step."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .gather import BatchValues
from .steps import Steps
from .windows import BoolArray, Windows


def fill_missing_steps(
    dataset: Any,
    windows: Windows,
    has_gap: BoolArray,
    missing: Tensor,
    values: BatchValues,
) -> None:
    """Fill missing steps with the values of ``constant_fill_strategy``.

    Variables without such a value are already filled forward.

    Parameters
    ----------
    dataset : BatchedTimeSeriesDataSet
        Names of the variables and constants to fill in.
    windows : Windows
        Samples of the batch.
    has_gap : ndarray of bool
        ``windows.has_gap``.
    missing : Tensor
        True where the data lack the step, shape ``(B, T)``.
    values : BatchValues
        Changed in place.
    """
    names, reals, categoricals = dataset.reals, values.reals, values.categoricals
    if dataset.time_idx in names:
        column = names.index(dataset.time_idx)
        stored = dataset.data["reals"][:, column]
        reals.change(column, _evenly_spaced(stored, windows, has_gap, reals.read(column)))
    unscaled = {f"__target__{name}": index for index, name in enumerate(dataset.target_names)}
    for name, value in dataset.encoded_constant_fill_strategy.items():
        if name in names:
            column = names.index(name)
            reals.change(column, _filled(reals.read(column), missing, value))
        elif name in unscaled:
            index = unscaled[name]
            values.targets[index] = _filled(values.targets[index], missing, value)
        elif name in dataset.flat_categoricals:
            column = dataset.flat_categoricals.index(name)
            categoricals.change(column, _filled(categoricals.read(column), missing, value))
        elif name not in dataset.target_names:  # a target that is not an input is skipped
            raise KeyError(f"Variable {name} is not known and thus cannot be filled in")


def _filled(values: Tensor, missing: Tensor, value: Any) -> Tensor:
    values = values.clone()
    values[missing] = value  # raises for the values for which pytorch-forecasting raises
    return values


def _evenly_spaced(column: Tensor, windows: Windows, has_gap: BoolArray, times: Tensor) -> Tensor:
    """Space the time index evenly in windows with missing steps, if it is a real variable."""
    samples = np.flatnonzero(has_gap)
    rows = np.stack([windows.first_row, windows.last_row])[:, samples]
    first, last = column[torch.from_numpy(rows)].tolist()
    length, skipped = windows.length[samples].tolist(), windows.skipped[samples].tolist()
    # One torch.linspace per window, as in pytorch-forecasting, so that all bits are equal.
    lines = [
        torch.linspace(start, end, steps, dtype=column.dtype)[skip : skip + times.shape[1]]
        for start, end, steps, skip in zip(first, last, length, skipped, strict=True)
    ]
    even = pad_sequence(lines, batch_first=True).to(times.device)
    times = times.clone()
    times[torch.from_numpy(samples).to(times.device), : even.shape[1]] = even
    return times


def hide_categories(dataset: Any, steps: Steps, values: BatchValues) -> None:
    """In samples without history, set ``dropout_categoricals`` to 0, the code of "unknown".

    Parameters
    ----------
    dataset : BatchedTimeSeriesDataSet
        Names of the variables.
    steps : Steps
        Steps of the batch.
    values : BatchValues
        Changed in place.
    """
    empty = (steps.encoder.length == 0).unsqueeze(1)
    for name in dataset.dropout_categoricals:
        column = dataset.flat_categoricals.index(name)
        categories = values.categoricals.read(column)
        values.categoricals.change(column, categories.masked_fill(empty, 0))
