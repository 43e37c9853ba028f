"""Series of different lengths in one tensor, padded with NaN; one series is empty."""

import numpy as np
import torch
from torch import Tensor

LENGTHS = torch.tensor([5, 3, 1, 0])


def ragged(size: int, right: bool = False) -> tuple[list[np.ndarray], Tensor, Tensor]:
    """Draw a series of each length in ``LENGTHS``; return them, a padded tensor, and its mask.

    Padding follows the series, or precedes them if ``right``.
    """
    rng = np.random.default_rng(0)
    series = [10 + 3 * rng.normal(size=length) for length in LENGTHS]
    padded = torch.full((len(LENGTHS), size), torch.nan, dtype=torch.float64)
    for row, values in enumerate(series):
        start = size - len(values) if right else 0
        padded[row, start : start + len(values)] = torch.from_numpy(values)
    return series, padded, ~padded.isnan()
