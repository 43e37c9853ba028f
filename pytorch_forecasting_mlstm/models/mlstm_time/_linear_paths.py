"""The linear part of the forecast: trend and season, each mapped straight to the horizon."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LinearPaths", "moving_average"]


class LinearPaths(nn.Module):
    """Forecast trend and season by one linear map each.

    The history is split into a moving average and the rest; each is mapped to the horizon by a
    matrix over time (DLinear, Zeng et al., arXiv:2205.13504). The matrices start near zero: with
    a history of mean 0, the first forecast is its mean. They have no constants: of histories of
    mean 0, a constant can learn no more than where the training data drifted.

    Parameters
    ----------
    history, horizon : int
        Steps in and steps out.
    moving_average : int
        Steps that are averaged to the trend.
    """

    def __init__(self, history: int, horizon: int, moving_average: int) -> None:
        super().__init__()
        self.moving_average = moving_average
        self.trend = nn.Linear(history, horizon, bias=False)
        self.season = nn.Linear(history, horizon, bias=False)
        for path in (self.trend, self.season):
            nn.init.normal_(path.weight, std=0.01 / history**0.5)

    def forward(self, y: Tensor, mask: Tensor) -> Tensor:
        """Map a right-aligned history y (B, T), valid (B, T), to (B, horizon)."""
        # the moving average must not see the padding: repeat the first valid value, as it does at
        # the ends
        first = mask.int().argmax(1, keepdim=True)
        filled = torch.where(mask, y, y.gather(1, first))
        trend = moving_average(filled, self.moving_average)
        season, trend = (part.masked_fill(~mask, 0) for part in (filled - trend, trend))
        return self.trend(trend) + self.season(season)


def moving_average(y: Tensor, steps: int) -> Tensor:
    """Average over ``steps`` steps around each of y (B, T), the ends repeated: (B, T).

    The trend of the host's ``SeriesDecomposition`` to the last bit, whose layout with features last
    takes torch ten times as long.
    """
    before = (steps - 1) // 2
    padded = F.pad(y[:, None], (before, steps - 1 - before), mode="replicate")
    return F.avg_pool1d(padded, steps, stride=1)[:, 0]
