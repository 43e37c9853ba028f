"""Training that is cut off, and goes on as if it had not been.

Lightning saves weights, optimisers, schedulers and counters. Which windows the rest of the epoch
has, and what dropout draws, it leaves to the data loader and to torch's generators: the two pieces
here make both follow from a seed and from the number of the step, so that nothing else need be
saved::

    loader = resumable(training.to_dataloader(train=True, batch_size=64), seed=1)
    trainer = Trainer(callbacks=[SeededSteps(seed=1), ModelCheckpoint(every_n_train_steps=500)], ...)
    trainer.fit(model, loader, ckpt_path="last")
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler

__all__ = ["ResumableDataLoader", "SeededSampler", "SeededSteps", "resumable"]


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
        # of its own: else each new iterator draws from the generator that samples are drawn by
        arguments["generator"] = torch.Generator().manual_seed(seed)
    if loader.batch_size is None:  # a batch sampler of the user's
        return ResumableDataLoader(**arguments, batch_sampler=loader.batch_sampler)
    sampler = loader.sampler
    if type(sampler) is RandomSampler:
        sampler = SeededSampler(loader.dataset, seed, sampler.replacement, sampler._num_samples)
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
        data_source: Dataset,
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
        self.generator = torch.Generator().manual_seed(_mix(self.seed, self.epoch))
        yield from super().__iter__()


class ResumableDataLoader(DataLoader):
    """A data loader that knows how many batches of the epoch it has handed out.

    Its state goes into Lightning's checkpoints; given back, the loader skips as many batches,
    without loading them. Build it with :func:`resumable`.
    """

    _skip = 0
    _given = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # not before the first batch is asked for: Lightning makes iterators that it does not use
        self._given = self._skip
        try:
            batches = super().__iter__()
        finally:
            self._skip = 0
        for batch in batches:
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
        return {"batches": self._given % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip as many batches in the epoch that is begun next."""
        self._skip = state["batches"]


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


class SeededSteps(Callback):
    """Seed torch before each batch, by the number of the batch.

    What a step draws, for dropout or for windows of random length, then follows from the seed and
    the number of the step alone, not from all that was drawn before: a training that goes on from a
    checkpoint draws what one would have drawn that was never cut off. Processes of a distributed
    training draw differently.

    Parameters
    ----------
    seed : int
        Seed of the training.

    Examples
    --------
    >>> from lightning import Trainer
    >>> trainer = Trainer(accelerator="cpu", logger=False, callbacks=[SeededSteps(seed=1)])
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed what loads the first batch."""
        self._seed(trainer, done=self._done(trainer), loads=True)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed what loads the first batch of the epoch."""
        self._seed(trainer, done=self._done(trainer), loads=True)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the step."""
        self._seed(trainer, done=self._done(trainer), loads=False)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Seed what loads the next batch."""
        self._seed(trainer, done=self._done(trainer), loads=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed what loads the next batch: validation may be in the middle of an epoch."""
        self._seed(trainer, done=self._done(trainer), loads=True)

    def _seed(self, trainer: Trainer, done: int, loads: bool) -> None:
        torch.manual_seed(_mix(self.seed, trainer.global_rank, done, int(loads)))

    @staticmethod
    def _done(trainer: Trainer) -> int:
        """Count the batches that were trained on, over all epochs."""
        return trainer.fit_loop.epoch_loop.batch_progress.total.processed


def _mix(*numbers: int) -> int:
    """Draw a seed from several numbers, so that near ones have nothing in common."""
    words = np.random.SeedSequence([number % 2**32 for number in numbers]).generate_state(2)
    return int(words[0]) << 31 | int(words[1]) >> 1
