"""A batch that is gathered when it is collated."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only


class LazyBatch(Sequence):
    """The result of ``__getitems__``: the positions of the samples, and their dataset.

    The collate function of the dataset gathers all samples at once. Any other collate function sees
    the sequence of single samples that it expects.

    Parameters
    ----------
    dataset : BatchedTimeSeriesDataSet
        Dataset of the samples.
    positions : sequence of int
        Positions of the samples in the index of the dataset.
    """

    def __init__(self, dataset: Any, positions: Sequence[int]):
        self._dataset = dataset
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, item: Any) -> Any:
        self._dataset._warn_fallback("the collate_fn reads single samples")
        return self._dataset[self._positions[item]]

    def __iter__(self) -> Iterator[Any]:
        # Sequence.__iter__ would treat an IndexError of the dataset as the end of the batch.
        return (self[item] for item in range(len(self)))

    def collate(self) -> Any:
        """Gather the batch."""
        return self._dataset._collate(self._positions)


def to_device(values: Any, device: torch.device) -> Any:
    """Copy all tensors in nested containers to a device."""
    return tree_map_only(Tensor, lambda values: values.to(device), values)
