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
