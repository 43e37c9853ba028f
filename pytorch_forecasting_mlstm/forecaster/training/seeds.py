"""Seeds that leave no trace."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and torch within a context, and restore their states after it.

    Lightning's `seed_everything` would also write into the environment of the process.
    """
    with isolate_rng():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        yield


def member_seed(seed: int, number: int) -> int:
    """Return the seed of a member of an ensemble: that of the first is `seed`.

    Close seeds of two ensembles have no member in common.

    >>> member_seed(3, 0)
    3
    """
    if number == 0:
        return seed
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
