"""Seeds that are derived from the progress of training."""

import numpy as np

__all__ = ["mix_seeds"]


def mix_seeds(*numbers: int) -> int:
    """Derive a seed from several numbers, so that neighboring numbers give unrelated seeds."""
    words = np.random.SeedSequence([number % 2**32 for number in numbers]).generate_state(2)
    return int(words[0]) << 31 | int(words[1]) >> 1
