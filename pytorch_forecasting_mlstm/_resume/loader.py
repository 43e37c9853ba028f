"""A data loader that resumes in the middle of an epoch."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, RandomSampler, Sampler, SequentialSampler

from .seeds import mix_seeds

__all__ = ["ResumableDataLoader", "SeededSampler", "resumable"]


def resumable(loader: DataLoader, seed: int) -> "ResumableDataLoader":
    """Make a data loader that goes on in the middle of an epoch, from a checkpoint of Lightning.

    Parameters
    ----------
    loader : DataLoader
        Loader of training batches, of ``TimeSeriesDataSet.to_dataloader`` for example. If it
        shuffles, the order of each epoch follows from ``seed`` from now on. A sampler of another
        kind is kept; it must give the same order in each run.
    seed : int
        Seed of the order.

    Returns
    -------
    ResumableDataLoader
        The same batches.

    Raises
    ------
    TypeError
        If ``loader`` is no DataLoader that makes batches of samples by their numbers.

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
            f"pass for example dataset.to_dataloader(train=True, batch_size=64)."
        )
    if type(loader) is not DataLoader:
        raise TypeError(
            f"resumable: expected a plain DataLoader, got a {type(loader).__name__}; make it "
            f"without this function, with state_dict and load_state_dict of its own."
        )
    kept = (
        "dataset num_workers collate_fn pin_memory timeout worker_init_fn multiprocessing_context "
        "generator prefetch_factor persistent_workers pin_memory_device"
    )
    arguments = {name: getattr(loader, name) for name in kept.split()}
    if loader.generator is None:
        # of its own: else each new iterator draws from the generator that dropout draws from
        arguments["generator"] = torch.Generator().manual_seed(seed)
    if loader.batch_size is None:  # a batch sampler of the user's
        return ResumableDataLoader(**arguments, batch_sampler=loader.batch_sampler)
    sampler = loader.sampler
    if type(sampler) is RandomSampler:
        sampler = SeededSampler(loader.dataset, seed, sampler.replacement, sampler._num_samples)
    elif type(sampler) is SequentialSampler:
        sampler = _InOrder(loader.dataset)  # type: ignore[arg-type]
    return ResumableDataLoader(
        **arguments, batch_size=loader.batch_size, sampler=sampler, drop_last=loader.drop_last
    )


class SeededSampler(RandomSampler):
    """Shuffle each epoch in an order of its own, which follows from a seed.

    Parameters
    ----------
    data_source : Dataset
        Dataset to shuffle.
    seed : int
        Seed of the order.
    replacement, num_samples
        As of :class:`torch.utils.data.RandomSampler`.
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
        """Choose the order: Lightning calls it before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed(mix_seeds(self.seed, self.epoch))
        yield from super().__iter__()


class _InOrder(SequentialSampler):
    """Take samples in their order, and know the epoch."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class ResumableDataLoader(DataLoader):
    """A data loader that knows how many batches of the epoch it has handed out.

    Its state goes into Lightning's checkpoints; given back, the loader skips as many batches,
    without loading them. What a dataset draws while a batch is loaded follows from the seed, the
    epoch and the number of the batch, unless worker processes load it. Build it with
    :func:`resumable`.
    """

    _skip = 0
    _skip_in = 0
    _given = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # not before the first batch is asked for: Lightning makes iterators that it does not use
        self._given = self._skip = self._skip if self._skip_in == self._epoch else 0
        try:
            batches = super().__iter__()
        finally:
            self._skip = 0
        while True:
            # what samples draw, such as random lengths, follows from epoch and number of the batch
            with torch.random.fork_rng(devices=[]):
                place = (self._epoch, getattr(self.sampler, "rank", 0), self._given)
                torch.manual_seed(mix_seeds(self.generator.initial_seed(), *place))
                try:
                    batch = next(batches)
                except StopIteration:
                    return
            self._given += 1
            yield batch

    @property
    def _index_sampler(self) -> Any:
        numbers = super()._index_sampler
        return _Rest(numbers, self._skip) if self._skip else numbers

    def __len__(self) -> int:
        return len(super()._index_sampler)

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of the epoch are done."""
        return {"epoch": self._epoch, "batches": self._given % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip as many batches, if the epoch that is begun next is the same."""
        self._skip, self._skip_in = state["batches"], state["epoch"]

    @property
    def _epoch(self) -> int:
        return getattr(self.sampler, "epoch", 0)


class _Rest(Sampler):
    """What a sampler has after its first ``skip`` batches."""

    def __init__(self, numbers: Any, skip: int) -> None:
        self.numbers = numbers
        self.skip = skip

    def __iter__(self) -> Iterator[Any]:
        numbers = iter(self.numbers)
        for _ in range(self.skip):
            next(numbers, None)
        yield from numbers

    def __len__(self) -> int:
        return max(len(self.numbers) - self.skip, 0)
