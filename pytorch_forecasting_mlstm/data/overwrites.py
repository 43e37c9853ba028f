"""Replace a variable by the values of ``set_overwrite_values``."""

from collections.abc import Sequence
from typing import Any

import torch

from .gather import BatchValues, Columns
from .steps import Steps
from .windows import Windows


def overwrite_values(
    dataset: Any, positions: Sequence[int], windows: Windows, steps: Steps, values: BatchValues
) -> None:
    """Replace a variable by the values passed to ``dataset.set_overwrite_values``.

    Parameters
    ----------
    dataset : BatchedTimeSeriesDataSet
        Values to use, and names of the variables.
    positions : sequence of int
        Positions of the samples in ``dataset.index``, for errors.
    windows, steps : Windows, Steps
        Samples of the batch.
    values : BatchValues
        Changed in place.
    """
    name, segment = dataset._overwrite_values["variable"], dataset._overwrite_values["target"]
    columns, column = _find_column(dataset, name, int(positions[0]), values)
    split = steps.encoder.length.unsqueeze(1)
    if segment == "encoder":
        replaced, rank, counts = steps.step < split, steps.step, windows.encoder_length
    elif segment == "all":
        replaced, rank, counts = torch.ones_like(split, dtype=torch.bool), steps.step, windows.total
    else:  # pytorch-forecasting treats anything else as "decoder"
        replaced, rank, counts = steps.step >= split, steps.step - split, windows.decoder_length
    new = torch.as_tensor(dataset._overwrite_values["values"]).to(columns.dtype).to(split.device)
    if new.ndim:
        mismatched = counts != len(new)
        if mismatched.any():
            sample = int(mismatched.argmax())
            position = int(positions[sample])
            dataset[position]  # raises pytorch-forecasting's own error, unless lengths are random
            raise RuntimeError(
                f"set_overwrite_values expects one value per step of {name!r}: sample {position} "
                f"has {counts[sample]} steps, got {len(new)} values; give a single number instead, "
                "or turn randomize_length off"
            )
        new = new[rank.clamp(0, len(new) - 1)]
    columns.change(column, torch.where(replaced, new, columns.read(column)))


def _find_column(
    dataset: Any, name: str, position: int, values: BatchValues
) -> tuple[Columns, int]:
    if name in dataset.reals:
        return values.reals, dataset.reals.index(name)
    if name in dataset.flat_categoricals:
        return values.categoricals, dataset.flat_categoricals.index(name)
    dataset[position]  # raises pytorch-forecasting's own error
    raise KeyError(name)
