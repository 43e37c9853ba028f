"""A data loader that resumes in the middle of an epoch."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, RandomSampler, Sampler, SequentialSampler

from .seeds import mix_seeds

__all__ = ["ResumableDataLoader", "SeededSampler", "resumable"]


def resumable(loader: DataLoader, seed: int) -> "ResumableDataLoader":
    """Make a data loader resume in the middle of an epoch, from a Lightning checkpoint.

    Parameters
    ----------
    loader : DataLoader
        Loader of training batches, for example from ``TimeSeriesDataSet.to_dataloader``. If it
        shuffles, the order of each epoch is derived from ``seed``. Samplers of other kinds are
        kept, and must give the same order in every run.
    seed : int
        Seed of the order.

    Returns
    -------
    ResumableDataLoader
        Loader of the same batches.

    Raises
    ------
    TypeError
        If ``loader`` is not a plain DataLoader, or does not batch samples by index.

    Examples
    --------
    >>> from torch.utils.data import DataLoader
    >>> loader = resumable(DataLoader(range(4), shuffle=True), seed=1)
    >>> sorted(int(batch) for batch in loader)
    [0, 1, 2, 3]
    """
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None:
        raise TypeError(
            f"resumable: expected a DataLoader with a batch size or batch sampler, got {loader!r}; "
            "pass, for example, dataset.to_dataloader(train=True, batch_size=64)."
        )
    if type(loader) is not DataLoader:
        raise TypeError(
            f"resumable: expected a plain DataLoader, got a {type(loader).__name__}; give "
            "that class its own state_dict and load_state_dict instead."
        )
    copied = (
        "dataset num_workers collate_fn pin_memory timeout worker_init_fn multiprocessing_context "
        "generator prefetch_factor persistent_workers pin_memory_device"
    )
    arguments = {name: getattr(loader, name) for name in copied.split()}
    if loader.generator is None:
        # Without one, every new iterator would draw from the generator that dropout uses.
        arguments["generator"] = torch.Generator().manual_seed(seed)
    if loader.batch_size is None:  # the user has set a batch sampler
        return ResumableDataLoader(**arguments, batch_sampler=loader.batch_sampler)
    sampler = loader.sampler
    if type(sampler) is RandomSampler:
        sampler = SeededSampler(loader.dataset, seed, sampler.replacement, sampler._num_samples)
    elif type(sampler) is SequentialSampler:
        sampler = _EpochSequentialSampler(loader.dataset)  # type: ignore[arg-type]
    return ResumableDataLoader(
        **arguments, batch_size=loader.batch_size, sampler=sampler, drop_last=loader.drop_last
    )


class SeededSampler(RandomSampler):
    """Shuffle each epoch in a different order, derived from a seed.

    Parameters
    ----------
    data_source : Dataset
        Dataset to shuffle.
    seed : int
        Seed of the order.
    replacement, num_samples
        As for :class:`torch.utils.data.RandomSampler`.
    """

    def __init__(
        self,
        data_source: Any,
        seed: int,
        replacement: bool = False,
        num_samples: int | None = None,
    ) -> None:
        super().__init__(data_source, replacement, num_samples)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; Lightning calls this before each one."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed(mix_seeds(self.seed, self.epoch))
        yield from super().__iter__()


class _EpochSequentialSampler(SequentialSampler):
    """Take samples in order, and keep track of the epoch."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class ResumableDataLoader(DataLoader):
    """A data loader that counts the batches it has returned in an epoch.

    Lightning saves its state in checkpoints. When the state is restored, the loader skips as many
    batches without loading them. The random numbers that a dataset draws while a batch is loaded
    are derived from the seed, the epoch and the batch index, unless worker processes load it. Build
    it with :func:`resumable`.
    """

    _skip = 0
    _skip_epoch = 0
    _returned = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # This runs when the first batch is requested: Lightning makes iterators that it never uses.
        self._returned = self._skip = self._skip if self._skip_epoch == self._epoch else 0
        try:
            batches = super().__iter__()
        finally:
            self._skip = 0
        while True:
            # Seed what samples draw, such as random lengths, by epoch and batch index.
            with torch.random.fork_rng(devices=[]):
                position = (self._epoch, getattr(self.sampler, "rank", 0), self._returned)
                torch.manual_seed(mix_seeds(self.generator.initial_seed(), *position))
                try:
                    batch = next(batches)
                except StopIteration:
                    return
            self._returned += 1
            yield batch

    @property
    def _index_sampler(self) -> Any:
        sampler = super()._index_sampler
        return _SkipSampler(sampler, self._skip) if self._skip else sampler

    def __len__(self) -> int:
        return len(super()._index_sampler)

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its batches are done."""
        return {"epoch": self._epoch, "batches": self._returned % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip as many batches if the next epoch to begin is the same one."""
        self._skip, self._skip_epoch = state["batches"], state["epoch"]

    @property
    def _epoch(self) -> int:
        return getattr(self.sampler, "epoch", 0)


class _SkipSampler(Sampler):
    """A sampler without its first ``skip`` batches."""

    def __init__(self, sampler: Any, skip: int) -> None:
        self.sampler = sampler
        self.skip = skip

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.sampler)
        for _ in range(self.skip):
            next(batches, None)
        yield from batches

    def __len__(self) -> int:
        return max(len(self.sampler) - self.skip, 0)
