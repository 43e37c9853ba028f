"""The linear part of the forecast: bands of the history, each mapped straight to the horizon."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PATHS", "LinearPaths", "moving_average"]

#: The bands, in the order in which they lie in the last dimension.
PATHS = ("trend", "cycle", "season")


class LinearPaths(nn.Module):
    """Forecast trend, cycle and season by one linear map each.

    The trend is a moving average over many steps, the cycle what a moving average over few steps
    has beyond it, the season the rest. Each is mapped to the horizon by a matrix over time (after
    DLinear, Zeng et al., arXiv:2205.13504, which has two bands). The matrices start near zero:
    with a history of mean 0, the first forecast is its mean. They have no constants: of histories
    of mean 0, a constant can learn no more than where the training data drifted.

    Parameters
    ----------
    history, horizon : int
        Steps in and steps out.
    moving_averages : tuple of int
        Steps that are averaged to the trend, and those to trend and cycle together.
    """

    def __init__(self, history: int, horizon: int, moving_averages: tuple[int, int]) -> None:
        super().__init__()
        self.moving_averages = moving_averages
        self.trend = nn.Linear(history, horizon, bias=False)
        self.cycle = nn.Linear(history, horizon, bias=False)
        self.season = nn.Linear(history, horizon, bias=False)
        for path in (self.trend, self.cycle, self.season):
            nn.init.normal_(path.weight, std=0.01 / history**0.5)

    def forward(self, y: Tensor, mask: Tensor) -> Tensor:
        """Map a right-aligned history y (B, T), valid (B, T), to its paths (B, horizon, 3)."""
        # the moving averages must not see the padding: repeat the first valid value, as they do at
        # the ends
        first = mask.int().argmax(1, keepdim=True)
        filled = torch.where(mask, y, y.gather(1, first))
        trend, smooth = (moving_average(filled, steps) for steps in self.moving_averages)
        bands = (trend, smooth - trend, filled - smooth)
        trend, cycle, season = (band.masked_fill(~mask, 0) for band in bands)
        return torch.stack([self.trend(trend), self.cycle(cycle), self.season(season)], dim=-1)


def moving_average(y: Tensor, steps: int) -> Tensor:
    """Average over ``steps`` steps around each of y (B, T), the ends repeated: (B, T).

    The trend of the host's ``SeriesDecomposition``, by differences of running sums, which take the
    same time for any number of steps: at 171 of 512 steps torch's pooling takes tens of times as
    long.
    """
    before = (steps - 1) // 2
    wide = y.to(torch.promote_types(y.dtype, torch.float32))  # 16 bits are too few for a sum
    level = wide.mean(1, keepdim=True)  # or the sums of a high level would have no digits left
    padded = F.pad((wide - level)[:, None], (before + 1, steps - 1 - before), mode="replicate")
    sums = padded[:, 0].cumsum(1)
    return (level + (sums[:, steps:] - sums[:, :-steps]) / steps).to(y.dtype)
