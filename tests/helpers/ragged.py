"""Series of different lengths, one of them empty, in one tensor with NaN as padding."""

import numpy as np
import torch
from torch import Tensor

LENGTHS = torch.tensor([5, 3, 1, 0])


def ragged(size: int, right: bool = False) -> tuple[list[np.ndarray], Tensor, Tensor]:
    """Draw a series for each of ``LENGTHS``; return them, joined in one tensor, and its mask.

    The padding is NaN, at the end, or in front of the series if ``right``.
    """
    rng = np.random.default_rng(0)
    series = [10 + 3 * rng.normal(size=length) for length in LENGTHS]
    joined = torch.full((len(LENGTHS), size), torch.nan, dtype=torch.float64)
    for row, values in enumerate(series):
        start = size - len(values) if right else 0
        joined[row, start : start + len(values)] = torch.from_numpy(values)
    return series, joined, ~joined.isnan()
