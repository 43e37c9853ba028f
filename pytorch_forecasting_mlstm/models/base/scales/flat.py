"""Warn of histories without spread, which borrow the scale of their series."""

import warnings

import numpy as np
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.data import NaNLabelEncoder

from ....data.group_normalization import series_starts
from ....data.windows import IntArray
from ..losses.link import target_normalizers

__all__ = ["count_flat_histories", "count_flat_windows", "warn_of_flat_histories"]


def warn_of_flat_histories(dataset: TimeSeriesDataSet, caller: str) -> None:
    """Warn if histories of a real target are constant, and say how many.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        Dataset to train on.
    caller : str
        Name to begin the message with.

    Warns
    -----
    UserWarning
        Once for each target, with the share of such histories.
    """
    for name, count in count_flat_histories(dataset).items():
        if count:
            share = count / len(dataset)
            warnings.warn(
                f"{caller}: {share:.1%} of the histories of target {name!r} are constant ({count} "
                f"of {len(dataset)}), and have no scale of their own: they get that of their "
                f"series, or of the other series if all of it is constant; a longer "
                f"max_encoder_length makes them fewer.",
                UserWarning,
                stacklevel=3,
            )


def count_flat_histories(dataset: TimeSeriesDataSet) -> dict[str, int]:
    """Count the samples with a constant history of several steps, for each real target.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        Dataset to train on.
    """
    index = dataset.index
    first = index["index_start"].to_numpy().astype(np.int64)
    horizon = np.minimum(
        dataset.max_prediction_length,
        index["sequence_length"].to_numpy() - dataset.min_encoder_length,
    )
    last = index["index_end"].to_numpy() - horizon
    first, last = first[last > first], last[last > first]  # a single step is always constant
    return _count_constant(dataset, first, last)


def count_flat_windows(dataset: TimeSeriesDataSet) -> dict[str, int]:
    """Count the samples in which neither history nor horizon changes, for each real target.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        Dataset to train on.
    """
    rows = (
        dataset.index[name].to_numpy().astype(np.int64) for name in ("index_start", "index_end")
    )
    return _count_constant(dataset, *rows)


def _count_constant(dataset: TimeSeriesDataSet, first: IntArray, last: IntArray) -> dict[str, int]:
    """Count the pairs of first and last rows between which a target does not change."""
    counts = {}
    for name, normalizer, values in zip(
        dataset.target_names,
        target_normalizers(dataset.target_normalizer),
        dataset.data["target"],
        strict=True,
    ):
        if not isinstance(normalizer, NaNLabelEncoder):
            run_start = _run_starts(values.numpy(), series_starts(dataset.data["groups"]))
            counts[name] = int((run_start[last] <= first).sum())
    return counts


def _run_starts(values: np.ndarray, first_rows: IntArray) -> IntArray:
    """Return, for each row, the first row of the run of equal values that it ends."""
    changes = np.append(True, values[1:] != values[:-1])
    changes[first_rows] = True
    return np.maximum.accumulate(np.where(changes, np.arange(len(values)), 0))
