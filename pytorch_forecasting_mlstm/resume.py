"""Training that is cut off, and goes on as if it had not been.

Lightning saves weights, optimizers, schedulers and counters. Which windows the rest of the epoch
has, and what dropout draws, it leaves to the data loader and to torch's generators: the two pieces
here make both follow from a seed and from the number of the step, so that nothing else need be
saved::

    loader = resumable(training.to_dataloader(train=True, batch_size=64), seed=1)
    saved = ModelCheckpoint(every_n_train_steps=500, save_last=True)
    trainer = Trainer(callbacks=[SeededSteps(seed=1), saved], plugins=[AtomicCheckpointIO()])
    trainer.fit(model, loader, ckpt_path="last")
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from torch.utils.data import DataLoader, RandomSampler, Sampler, SequentialSampler

__all__ = ["AtomicCheckpointIO", "ResumableDataLoader", "SeededSampler", "SeededSteps", "resumable"]


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
        self.generator = torch.Generator().manual_seed(_mix(self.seed, self.epoch))
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
                torch.manual_seed(_mix(self.generator.initial_seed(), *place))
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


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints so that a file is the old one or the new one, never a part of one.

    Lightning writes to the system's folder for temporary files and moves the file from there, which
    is a copy where that is another file system: cut off, it leaves part of a file in the place of
    a good one. Here the new file lies beside the old one, is on the disk before it is renamed, and
    takes the old one's place in one step. For paths of other than local file systems, Lightning's
    own way is used.

    Examples
    --------
    >>> from lightning import Trainer
    >>> trainer = Trainer(accelerator="cpu", logger=False, plugins=[AtomicCheckpointIO()])
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Parameters
        ----------
        checkpoint : dict
            What to write.
        path : str or Path
            File.
        storage_options : optional
            Not used, as in Lightning.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with new.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(target)
        finally:
            new.unlink(missing_ok=True)


class SeededSteps(Callback):
    """Seed torch before each step, by the number of the step.

    What a step draws, for dropout for example, then follows from the seed and the number of the
    step alone, not from all that was drawn before: a training that goes on from a
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

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the step, by its number over all epochs."""
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.total
        torch.manual_seed(_mix(self.seed, trainer.global_rank, progress.processed))


def _mix(*numbers: int) -> int:
    """Draw a seed from several numbers, so that near ones have nothing in common."""
    words = np.random.SeedSequence([number % 2**32 for number in numbers]).generate_state(2)
    return int(words[0]) << 31 | int(words[1]) >> 1
