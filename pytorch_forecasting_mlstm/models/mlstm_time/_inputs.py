"""From a batch of the host to what the memory reads: features of steps, tokens of patches."""

import torch
from pytorch_forecasting.models.nn import MultiEmbedding
from torch import Tensor, nn

from pytorch_forecasting_mlstm.models.mlstm_time._alignment import fold

__all__ = ["ColumnEmbedding", "StepFeatures", "Tokens"]


class ColumnEmbedding(MultiEmbedding):
    """The host's embeddings, for columns of any name.

    The host keeps them in a module by the names of the columns, in which ``type``, ``values`` and
    other names are taken.

    Parameters
    ----------
    embedding_sizes, x_categoricals, categorical_groups, embedding_paddings
        As of the host's class.
    """

    def __init__(
        self,
        embedding_sizes: dict[str, tuple[int, int]],
        x_categoricals: list[str],
        categorical_groups: dict[str, list[str]],
        embedding_paddings: list[str],
    ) -> None:
        super().__init__(
            {_key(name): size for name, size in embedding_sizes.items()},
            [_key(name) for name in x_categoricals],
            {_key(n): [_key(name) for name in names] for n, names in categorical_groups.items()},
            [_key(name) for name in embedding_paddings],
        )
        self.widths = {name: self.output_size[_key(name)] for name in embedding_sizes}

    def __getitem__(self, name: str) -> nn.Module:
        return self.embeddings[_key(name)]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Embed categoricals (..., x_categoricals) by name: (..., width)."""
        embedded = super().forward(x)
        return {name: embedded[_key(name)] for name in self.widths}


def _key(column: str) -> str:
    return f"of_{column}"


class StepFeatures(nn.Module):
    """Select real columns of a batch and join them with the embeddings of categorical ones.

    Parameters
    ----------
    reals, categoricals : list of str
        Names to select; a group of categoricals goes by its group's name.
    x_reals : list of str
        Names of the columns of ``encoder_cont`` and ``decoder_cont``.
    embedding_widths : dict of str to int
        Width of the embedding of each categorical variable.
    """

    def __init__(
        self,
        reals: list[str],
        categoricals: list[str],
        x_reals: list[str],
        embedding_widths: dict[str, int],
    ) -> None:
        super().__init__()
        places = {name: place for place, name in reversed(list(enumerate(x_reals)))}
        self.columns = [places[name] for name in reals]
        self.categoricals = categoricals
        self.size = len(reals) + sum(embedding_widths[name] for name in categoricals)

    def forward(self, reals: Tensor, embedded: dict[str, Tensor]) -> Tensor:
        """Join columns of reals (..., x_reals) and embeddings to (..., size)."""
        return torch.cat(
            [reals[..., self.columns], *(embedded[name] for name in self.categoricals)], dim=-1
        )


class Tokens(nn.Module):
    """Fold steps into patches and map each to a token, with the steps that are valid marked.

    Parameters
    ----------
    step_size : int
        Features of a step.
    patch_length : int
        Steps folded into one token, P.
    hidden_size : int
        Width of a token, H.
    """

    def __init__(self, step_size: int, patch_length: int, hidden_size: int) -> None:
        super().__init__()
        self.patch_length = patch_length
        self.projection = nn.Linear(patch_length * (step_size + 1), hidden_size)

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (B, N * P, step_size) and their mask to tokens (B, N, H) and theirs."""
        valid = mask[..., None]
        marked = torch.cat([features.masked_fill(~valid, 0), valid.to(features.dtype)], dim=-1)
        return self.projection(fold(marked, self.patch_length)), fold(valid, self.patch_length).any(
            -1
        )
