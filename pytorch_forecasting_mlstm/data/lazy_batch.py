"""Samples of a batch that are fetched when the batch is collated."""

from collections.abc import Iterator, Sequence
from typing import Any


class PendingBatch(Sequence):
    """What ``__getitems__`` returns: the numbers of the samples, and where to fetch them.

    The dataset's own collate function gathers all of them at once. To any other it is the sequence
    of samples that it expects.

    Parameters
    ----------
    dataset : BatchedTimeSeriesDataSet
        dataset that the samples belong to
    numbers : sequence of int
        positions of the samples in the index of the dataset
    """

    def __init__(self, dataset: Any, numbers: Sequence[int]):
        self._dataset = dataset
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, item: Any) -> Any:
        self._dataset._tell_of_stock_path("the collate_fn asks for single samples")
        return self._dataset[self._numbers[item]]

    def __iter__(self) -> Iterator[Any]:
        # Not the one of Sequence: that would take an IndexError of the dataset for the end.
        return (self[item] for item in range(len(self)))

    def collate(self) -> Any:
        """Gather the batch."""
        return self._dataset._collated(self._numbers)
