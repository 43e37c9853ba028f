"""Random numbers that leave torch's global generators, which other threads may use, alone."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from typing import Any

import torch
from pytorch_forecasting.metrics import DistributionLoss
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

__all__ = ["SeededDraws", "fixed_seed", "seed_loader"]


class SeededDraws(TorchDispatchMode):
    """Let operations of this thread draw from generators of their own.

    Distributions of torch accept no generator. Seeding the global one would change the numbers of
    other threads, and restoring its state would repeat theirs.

    Parameters
    ----------
    seed : int
        Seed.

    Examples
    --------
    >>> from torch.distributions import Normal
    >>> before = torch.get_rng_state()
    >>> with SeededDraws(0):
    ...     first = Normal(0.0, 1.0).sample()
    >>> with SeededDraws(0):
    ...     second = Normal(0.0, 1.0).sample()
    >>> bool(first == second), torch.equal(torch.get_rng_state(), before)
    (True, True)
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation; if it draws, from the generator of its device."""
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded in func.tags:
            if "generator" not in _names(func) and "generator" in func.overloadpacket.overloads():
                func = func.overloadpacket.generator
            names = _names(func)
            # Some operations take it by position, as their last argument, which is how they arrive
            # from an inner instance.
            given = dict(zip(names, args, strict=False)) | kwargs
            if "generator" in names and given.get("generator") is None:
                args = args[: names.index("generator")]
                kwargs["generator"] = self._generator(args, kwargs)
        return func(*args, **kwargs)

    def _generator(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Generator:
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        device = kwargs.get("device")
        if device is None:
            device = next((tensor.device for tensor in tensors), torch.get_default_device())
        device = torch.device(device)
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]


def _names(func: Any) -> list[str]:
    return [argument.name for argument in func._schema.arguments]


def fixed_seed(losses: Iterable[Any], seed: int) -> AbstractContextManager[Any]:
    """Fix what this thread draws from the forecasts of distributions, see :class:`SeededDraws`.

    Parameters
    ----------
    losses : iterable of Metric
        Losses of the targets. Those that are no distributions draw nothing.
    seed : int
        Seed.
    """
    draws = any(isinstance(loss, DistributionLoss) for loss in losses)
    return SeededDraws(seed) if draws else nullcontext()


def seed_loader(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return a loader of the same batches that draws nothing from torch's global generator.

    Every iteration of a loader draws a seed for its workers, and that of a random sampler one for
    the order. Generators that a user has passed stay.

    Parameters
    ----------
    loader : DataLoader
        The loader, which is left as it is.
    """
    seeded = copy(loader)
    if seeded.generator is None:
        seeded.generator = torch.Generator().manual_seed(0)
    sampler: Any = loader.sampler
    if isinstance(sampler, RandomSampler) and sampler.generator is None:
        sampler = copy(sampler)
        sampler.generator = torch.Generator().manual_seed(0)
        # a loader forbids assignments to its samplers, which here replace equal ones
        vars(seeded)["sampler"] = sampler
        if isinstance(loader.batch_sampler, BatchSampler):
            batch_sampler = copy(loader.batch_sampler)
            batch_sampler.sampler = sampler
            vars(seeded)["batch_sampler"] = batch_sampler
    return seeded
