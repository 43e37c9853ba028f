"""Parts of the network: embeddings, patches, and linear maps of trend, cycle and season."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..base.padding import zero_outside

__all__ = [
    "COMPONENTS",
    "CategoricalEmbedding",
    "DecompositionLinear",
    "EmbeddingTable",
    "FeatureSelector",
    "Features",
    "PatchEmbedding",
    "fold",
    "moving_averages",
    "unfold",
]

#: Components of a history, in the order of the last dimension of :class:`DecompositionLinear`.
COMPONENTS = ("trend", "cycle", "season")


class EmbeddingTable(NamedTuple):
    """How one categorical variable is embedded.

    Attributes
    ----------
    num_classes, size : int
        Rows and width of the table.
    columns : list of int
        Columns of the batch that hold its codes. The embeddings of several are summed.
    zero_padding : bool
        Whether code 0 is embedded as zeros.
    """

    num_classes: int
    size: int
    columns: list[int]
    zero_padding: bool = False


class Features(NamedTuple):
    """Which variables are read.

    Attributes
    ----------
    reals : list of int
        Columns of the real variables.
    categoricals : list of str
        Names of the categorical ones, as in :class:`CategoricalEmbedding`.
    """

    reals: list[int]
    categoricals: list[str]


class CategoricalEmbedding(nn.Module):
    """Embed categorical variables, or sums of several with a common table.

    Parameters
    ----------
    tables : dict of str to EmbeddingTable
        How to embed each variable.
    """

    def __init__(self, tables: dict[str, EmbeddingTable]) -> None:
        super().__init__()
        self.columns = {name: table.columns for name, table in tables.items()}
        self.sizes = {name: table.size for name, table in tables.items()}
        # a list, since names of columns may be those of attributes of a ModuleDict
        self.tables = nn.ModuleList(map(self._make, tables.values()))

    @staticmethod
    def _make(table: EmbeddingTable) -> nn.Embedding | nn.EmbeddingBag:
        if len(table.columns) != 1:
            return nn.EmbeddingBag(table.num_classes, table.size, mode="sum")
        padding = 0 if table.zero_padding else None
        return nn.Embedding(table.num_classes, table.size, padding_idx=padding)

    def __getitem__(self, name: str) -> nn.Module:
        return self.tables[list(self.columns).index(name)]

    def forward(self, codes: Tensor) -> dict[str, Tensor]:
        """Embed codes (B, T, C) by the name of the variable, each (B, T, size)."""
        embedded = {}
        for (name, columns), table in zip(self.columns.items(), self.tables, strict=True):
            if isinstance(table, nn.EmbeddingBag):
                bags = codes[..., columns]
                embedded[name] = table(bags.flatten(0, 1)).unflatten(0, bags.shape[:2])
            else:
                embedded[name] = table(codes[..., columns[0]])
        return embedded


class FeatureSelector(nn.Module):
    """Select real columns of a batch and concatenate them with embeddings.

    Parameters
    ----------
    features : Features
        What to select.
    embedding_sizes : dict of str to int
        Width of the embedding of each categorical variable.
    """

    def __init__(self, features: Features, embedding_sizes: dict[str, int]) -> None:
        super().__init__()
        self.columns, self.categoricals = features
        self.size = len(self.columns) + sum(embedding_sizes[name] for name in self.categoricals)

    def forward(self, reals: Tensor, embedded: dict[str, Tensor]) -> Tensor:
        """Concatenate columns of reals (..., R) and embeddings to (..., size)."""
        reals = _select_columns(reals, self.columns)
        if not self.categoricals:
            return reals
        return torch.cat([reals, *(embedded[name] for name in self.categoricals)], dim=-1)


def _select_columns(x: Tensor, columns: list[int]) -> Tensor:
    """Select columns of x (..., R): as a view if they are consecutive."""
    first, end = (columns[0], columns[-1] + 1) if columns else (0, 0)
    if columns == list(range(first, end)):
        return x[..., first:end]
    return x[..., columns]


class PatchEmbedding(nn.Module):
    """Fold steps into patches, and map each patch, with a mark of its valid steps, to a token.

    Parameters
    ----------
    step_size : int
        Features of a step.
    patch_length : int
        Steps of a patch, P.
    hidden_size : int
        Width of a token, H.
    """

    def __init__(self, step_size: int, patch_length: int, hidden_size: int) -> None:
        super().__init__()
        self.patch_length = patch_length
        self.projection = nn.Linear(patch_length * (step_size + 1), hidden_size)

    def forward(self, features: Sequence[Tensor], mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map features of steps (B, N * P, ...) and their mask to tokens (B, N, H) and theirs.

        The features are ``step_size`` in all. A mask of None is one that is True everywhere.
        """
        steps, P = features[0].shape[:2], self.patch_length
        valid = features[0].new_ones(*steps, 1)
        marked = torch.cat([*features, valid], dim=-1)
        if mask is not None:
            marked = zero_outside(marked, mask[..., None])
        tokens = self.projection(fold(marked, P))
        if mask is None:
            return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return tokens, fold(mask[..., None], P).any(-1)


def fold(x: Tensor, patch_length: int) -> Tensor:
    """Fold steps into patches of P steps: (B, N * P, F) to (B, N, P * F)."""
    return x.unflatten(1, (-1, patch_length)).flatten(2)


def unfold(x: Tensor, patch_length: int) -> Tensor:
    """Undo :func:`fold`: (B, N, P * F) to (B, N * P, F)."""
    return x.unflatten(2, (patch_length, -1)).flatten(1, 2)


class DecompositionLinear(nn.Module):
    """Map the trend, the cycle and the season of a history to the horizon, each by one matrix.

    The trend is a moving average over many steps. A moving average over few steps is trend plus
    cycle, and the season is what remains. This follows DLinear (Zeng et al., arXiv:2205.13504),
    which has two components. The matrices start near zero, so that the first forecast is the mean
    of the history, which is 0. They have no bias: with histories of mean 0, a bias could only learn
    the drift of the training data.

    Parameters
    ----------
    history, horizon : int
        Steps in and steps out.
    moving_averages : tuple of int
        Steps that are averaged for the trend, and for trend plus cycle.
    """

    def __init__(self, history: int, horizon: int, moving_averages: tuple[int, int]) -> None:
        super().__init__()
        self.moving_averages = moving_averages
        self.trend = nn.Linear(history, horizon, bias=False)
        self.cycle = nn.Linear(history, horizon, bias=False)
        self.season = nn.Linear(history, horizon, bias=False)
        for linear in (self.trend, self.cycle, self.season):
            nn.init.normal_(linear.weight, std=0.01 / history**0.5)

    @torch.no_grad()
    def start_at(self, weight: Tensor) -> None:
        """Map the whole history by one matrix, (steps, horizon): that of each component.

        Of a longer history, the last steps are mapped.
        """
        for linear in (self.trend, self.cycle, self.season):
            linear.weight.zero_()
            linear.weight[:, -len(weight) :] = weight.T

    def forward(self, y: Tensor, mask: Tensor | None) -> Tensor:
        """Map a right-aligned history y (B, T) to components (B, horizon, 3).

        A mask of None is one of valid steps, (B, T), that is True everywhere.
        """
        if mask is not None:
            # the moving averages must not see the padding: it repeats the first valid value, as
            # the moving averages do at the ends
            first = mask.int().argmax(1, keepdim=True)
            y = torch.where(mask, y, y.gather(1, first))
        trend, smooth = moving_averages(y, self.moving_averages)
        maps = (self.trend, trend), (self.cycle, smooth - trend), (self.season, y - smooth)
        return torch.stack([linear(zero_outside(part, mask)) for linear, part in maps], dim=-1)


def moving_averages(y: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """Average y (B, T) over each of ``widths`` steps around each step, with repeated ends: (B, T).

    These are trends of pytorch-forecasting's ``SeriesDecomposition``, computed by differences of
    cumulative sums. These take the same time for any number of steps: for 171 of 512 steps, torch's
    pooling takes tens of times as long.
    """
    offsets = [(steps - 1) // 2 for steps in widths]  # of the first step averaged
    before = max(offsets)
    after = max(steps - 1 - offset for steps, offset in zip(widths, offsets, strict=True))
    wide = y if y.dtype == torch.float64 else y.float()  # 16 bits are too few for a sum
    level = wide.mean(1, keepdim=True)  # without it, sums of a high level would lose all digits
    change = wide - level
    sums = change.cumsum(1)
    # Repeated ends continue the sums in both directions: a sum that begins with a hundred times the
    # first value would round all that follows.
    first_steps, last_steps = (
        torch.arange(*steps, dtype=wide.dtype, device=y.device)
        for steps in ((-before, 1), (1, after + 1))
    )
    right = sums[:, -1:] + change[:, -1:] * last_steps
    sums = torch.cat([change[:, :1] * first_steps, sums, right], dim=1)
    averages = []
    for steps, offset in zip(widths, offsets, strict=True):
        start, T = before - offset, y.shape[1]
        total = sums[:, start + steps : start + steps + T] - sums[:, start : start + T]
        averages.append((level + total / steps).to(y.dtype))
    return averages
