"""Batches of a few samples of a dataset, to try a loss on."""

from typing import Any

from pytorch_forecasting import TimeSeriesDataSet

from ....data import BatchedTimeSeriesDataSet

__all__ = ["collate_samples"]


def collate_samples(dataset: TimeSeriesDataSet, positions: list[int]) -> tuple[Any, Any]:
    """Return a batch of some samples on the CPU, as the loader of the dataset does.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        The dataset. One that carries missing values scales samples by what is there only if they
        are gathered as a batch.
    positions : list of int
        Positions of the samples in its index.
    """
    if isinstance(dataset, BatchedTimeSeriesDataSet):
        return dataset.to("cpu")._collate(positions)  # where a new model is
    return TimeSeriesDataSet._collate_fn([dataset[position] for position in positions])
