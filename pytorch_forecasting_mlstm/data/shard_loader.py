"""Batches of shards, of which every process takes an equal part."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed
from torch.nn.functional import pad

from .._resume.seeds import mix_seeds
from .batched import BatchedTimeSeriesDataSet
from .collate import Batch

__all__ = ["ShardLoader", "find_process", "join_batches"]


class _Piece(NamedTuple):
    """Windows of one shard in one batch."""

    batch: int
    shard: int
    windows: list[int]


class ShardLoader:
    """A loader over shards, whose batches are gathered from one shard at a time.

    Lightning saves its state in checkpoints. When the state is restored, the loader skips as many
    batches without reading their shards. Make it with `ParquetShards.to_dataloader`.

    Parameters
    ----------
    shards : ParquetShards
        The shards.
    batch_size : int
        Windows in a batch of one process.
    seed : int or None
        Seed of the order; None keeps the order of the shards.

    Attributes
    ----------
    shards : ParquetShards
        The shards.
    """

    batch_sampler = None  # as for a DataLoader that makes batches of single samples

    def __init__(self, shards: Any, batch_size: int, seed: int | None) -> None:
        self.shards = shards
        self.batch_size = batch_size
        self.seed = seed
        self._epoch = self._returned = self._skip = self._skip_epoch = 0

    @property
    def sampler(self) -> "ShardLoader":
        """The loader itself, whose ``set_epoch`` Lightning looks for here."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; Lightning calls this before each one."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-self._share()[1] // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        self._returned = self._skip if self._skip_epoch == self._epoch else 0
        self._skip = 0
        parts: list[Batch] = []
        opened, dataset = None, None
        for piece in self._pieces():
            if piece.batch < self._returned:
                continue
            if parts and piece.batch != self._returned:
                yield self._next(parts)
                parts = []
            if piece.shard != opened:
                dataset = None  # frees the last shard before the next one is read
                opened, dataset = piece.shard, self.shards[piece.shard]
            assert dataset is not None
            parts.append(self._collate(dataset, piece))
        if parts:
            yield self._next(parts)

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its batches are done."""
        return {"epoch": self._epoch, "batches": self._returned % max(len(self), 1)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip as many batches if the next epoch to begin is the same one."""
        self._skip, self._skip_epoch = state["batches"], state["epoch"]

    def _next(self, parts: list[Batch]) -> Batch:
        self._returned += 1
        return join_batches(parts)

    def _collate(self, dataset: BatchedTimeSeriesDataSet, piece: _Piece) -> Batch:
        """Gather windows; what is drawn for them depends on the seed, the epoch and the batch."""
        rank, _ = find_process()
        numbers = self.seed or 0, self._epoch, rank, piece.batch, piece.shard
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix_seeds(*numbers))
            return dataset.__getitems__(piece.windows).collate()

    def _share(self) -> tuple[int, int]:
        """Return the first window of this process in the order, and how many it takes."""
        total, (rank, processes) = sum(self.shards.windows), find_process()
        count = total // (processes * self.batch_size) * self.batch_size
        if self.seed is None or not count:
            count = -(-total // processes)
        return rank * count, count

    def _pieces(self) -> Iterator[_Piece]:
        """Yield the windows of this process in order, divided where a batch or a shard ends."""
        sizes = self.shards.windows
        order = np.arange(len(sizes))
        if self.seed is not None:
            order = self._permutation(len(sizes))
        bounds = np.cumsum([0, *(sizes[shard] for shard in order)])
        start, count = self._share()
        taken, shard, windows = 0, -1, np.arange(0)
        while taken < count:
            position = (start + taken) % bounds[-1]  # the first windows may be repeated
            place = int(np.searchsorted(bounds, position, side="right")) - 1
            if order[place] != shard:
                shard = int(order[place])
                windows = np.arange(sizes[shard])
                if self.seed is not None:
                    windows = self._permutation(sizes[shard], shard + 1)
            batch, filled = divmod(taken, self.batch_size)
            first = int(position - bounds[place])
            last = first + min(self.batch_size - filled, count - taken)
            chosen = windows[first:last].tolist()
            yield _Piece(batch, shard, chosen)
            taken += len(chosen)

    def _permutation(self, size: int, *numbers: int) -> npt.NDArray[np.int64]:
        """Return a random order that depends on the seed, the epoch and the given numbers."""
        assert self.seed is not None
        generator = torch.Generator().manual_seed(mix_seeds(self.seed, self._epoch, *numbers))
        return torch.randperm(size, generator=generator).numpy()


def find_process() -> tuple[int, int]:
    """Return the rank of this process, and the number of processes that train together."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def join_batches(batches: list[Batch]) -> Batch:
    """Join batches of several datasets into the batch that one dataset would give.

    Parameters
    ----------
    batches : list of tuple
        Batches ``x, (target, weight)``.

    Returns
    -------
    tuple
        All samples, padded to the longest history and the longest horizon.
    """
    if len(batches) == 1:
        return batches[0]
    x, y = _join(batches)
    first = x["decoder_time_idx"][:, :1]  # times go on in the padding
    x["decoder_time_idx"] = first + torch.arange(x["decoder_time_idx"].shape[1])
    return x, y


def _join(parts: list[Any]) -> Any:
    first = parts[0]
    if isinstance(first, dict):
        return {name: _join([part[name] for part in parts]) for name in first}
    if isinstance(first, tuple | list):
        return type(first)(_join(list(values)) for values in zip(*parts, strict=True))
    if first is None:
        return None
    return torch.cat(parts if first.ndim == 1 else _pad_steps(parts))


def _pad_steps(parts: list[Tensor]) -> list[Tensor]:
    """Pad the second dimension with zeros, as the steps of a batch are padded."""
    steps = max(part.shape[1] for part in parts)
    return [pad(part, (0, 0) * (part.ndim - 2) + (0, steps - part.shape[1])) for part in parts]
