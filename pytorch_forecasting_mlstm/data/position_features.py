"""Variables that depend on where a sample is split: relative time index and encoder length."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .gather import BatchValues
from .steps import Steps
from .windows import Windows


def add_position_features(
    dataset: Any, windows: Windows, steps: Steps, values: BatchValues
) -> None:
    """Set ``relative_time_idx`` and ``encoder_length`` if the dataset has them.

    Parameters
    ----------
    dataset : BatchedTimeSeriesDataSet
        Settings and names of the variables.
    windows, steps : Windows, Steps
        Samples of the batch.
    values : BatchValues
        ``values.reals`` is changed in place.
    """
    names, reals = dataset.reals, values.reals
    longest, total, device = dataset.max_encoder_length, len(steps.step), steps.step.device
    if dataset.add_relative_time_idx:
        if windows.equal:
            history = int(windows.encoder_length[0])
            relative = _relative_time(history, total, longest, reals.dtype, device)
            relative = relative.expand(len(steps.first_row), -1)
        else:
            # Divide by a tensor: CUDA multiplies by the rounded inverse of a plain number.
            divisor = torch.tensor(longest, dtype=reals.dtype, device=device)
            relative = (steps.step - steps.encoder.length.unsqueeze(1)).to(divisor.dtype) / divisor
        reals.change(names.index("relative_time_idx"), relative)
    if dataset.add_encoder_length:
        length = (windows.encoder_length - 0.5 * longest) / longest * 2.0
        constant = torch.from_numpy(length).to(reals.dtype).to(device)
        reals.change(names.index("encoder_length"), constant.unsqueeze(1).expand(-1, total))


@lru_cache(maxsize=16)
def _relative_time(
    history: int, total: int, longest: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Count steps from the end of the history, in units of the longest history."""
    return (torch.arange(-history, total - history, dtype=dtype) / longest).to(device)
