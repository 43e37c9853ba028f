"""The network of mLSTMTime, from tensors to tensors: it knows no dataset, no loss, no trainer."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...layers import mLSTMLayer
from ..base.padding import align_right, pad_steps, partial_mask
from ..base.scales.table import ReferenceScales
from .missing import MissingInputs, fill_columns, fill_nan, mark_missing
from .submodules import (
    COMPONENTS,
    CategoricalEmbedding,
    DecompositionLinear,
    EmbeddingTable,
    Features,
    FeatureSelector,
    PatchEmbedding,
    unfold,
)
from .targets import EncodedTarget, TargetSpec, flip_sign, make_target_encoder

__all__ = ["ForecastParts", "MemoryOutput", "NetworkInputs", "TargetForecast", "mLSTMTimeNetwork"]


class NetworkInputs(NamedTuple):
    """A batch of B samples with T steps of history and S of horizon, each padded at the end.

    Attributes
    ----------
    target_histories : list of Tensor
        History of each target, (B, T), in the units of the data, NaN where it is missing; or as
        codes of classes.
    target_scales : list of Tensor
        Center and scale of each real target, (B, 2), in the space of its ``transform``.
    reference_scales : list of ReferenceScales
        Scales of each real target, in the same space, for histories that have none of their own.
    history_lengths, horizon_lengths : Tensor
        Valid steps of each sample, (B,).
    history_reals, horizon_reals : Tensor
        Real variables, (B, T, R) and (B, S, R), NaN where they are missing.
    history_categoricals, horizon_categoricals : Tensor
        Codes of categorical variables, (B, T, C) and (B, S, C).
    """

    target_histories: list[Tensor]
    target_scales: list[Tensor]
    reference_scales: list[ReferenceScales]
    history_lengths: Tensor
    horizon_lengths: Tensor
    history_reals: Tensor
    horizon_reals: Tensor
    history_categoricals: Tensor
    horizon_categoricals: Tensor


class TargetForecast(NamedTuple):
    """The forecast of one target: ``output * scale + center`` is in the units of the transform.

    Attributes
    ----------
    output : Tensor
        Numbers of every step, (B, S, output_size), of a scale near 1.
    target_scale : Tensor
        Center and scale of every sample, (B, 2).
    """

    output: Tensor
    target_scale: Tensor


class ForecastParts(NamedTuple):
    """The parts of the forecast of one target.

    Attributes
    ----------
    components : Tensor
        Trend, cycle and season, times their amplitudes, (B, S, output_size, 3).
    residual : Tensor
        What the memory adds, (B, S, output_size).
    amplitudes : Tensor
        Amplitudes of the components, (B, S, 1, 3), or (1, S, 1, 3) if they are fixed.
    target_scale : Tensor
        Center and scale of every sample, (B, 2).
    flipped : Tensor or None
        Whether the sample was negated, and so are its parts, bool, (B, 1, 1).
    """

    components: Tensor
    residual: Tensor
    amplitudes: Tensor
    target_scale: Tensor
    flipped: Tensor | None

    def add_up(self) -> TargetForecast:
        """Return the forecast that the parts add up to."""
        output = self.components.sum(-1) + self.residual
        if self.flipped is not None:
            output = flip_sign(output, self.flipped)
        return TargetForecast(output, self.target_scale)


class MemoryOutput(NamedTuple):
    """What the memory reads and returns.

    Attributes
    ----------
    residuals : list of Tensor
        For each target, what is added to its components, (B, steps, output_size).
    amplitudes : list of Tensor
        For each target, the amplitudes of its components, (B or 1, steps, 1, 3).
    tokens, mask : Tensor
        Input of the mLSTM layer, (B, N, H), and its valid tokens, (B, N).
    """

    residuals: list[Tensor]
    amplitudes: list[Tensor]
    tokens: Tensor
    mask: Tensor


class mLSTMTimeNetwork(nn.Module):
    """Linear maps of trend, cycle and season, which an mLSTM memory scales and corrects.

    Parameters
    ----------
    targets : list of TargetSpec
        The targets.
    history, horizon : int
        Largest numbers of steps of history and horizon.
    memory_length : int
        Steps at the end of the history that the memory reads, and that scale a sample.
    hidden_size, num_layers, num_heads, dropout, patch_length, moving_averages, amplitudes
        As in :class:`~pytorch_forecasting_mlstm.mLSTMTime`.
    instance_normalization : bool
        Whether every sample is scaled by its own history.
    embeddings : dict of str to EmbeddingTable
        How to embed each categorical variable.
    history_features, horizon_features, static_features : Features
        What is read at each step of the history, at each step of the horizon, and only at the first
        step of the horizon.
    lagged_targets : dict of int to int
        For each column of the reals that holds earlier values of a target, as the dataset
        normalizes them, the number of the target.
    missing : MissingInputs
        Which targets and variables may be missing, and which of them have a mark that says where.
    """

    def __init__(
        self,
        targets: list[TargetSpec],
        *,
        history: int,
        horizon: int,
        memory_length: int,
        hidden_size: int,
        num_layers: int,
        num_heads: int,
        dropout: float,
        patch_length: int,
        moving_averages: tuple[int, int],
        amplitudes: bool,
        instance_normalization: bool,
        embeddings: dict[str, EmbeddingTable],
        history_features: Features,
        horizon_features: Features,
        static_features: Features,
        lagged_targets: dict[int, int],
        missing: MissingInputs,
    ) -> None:
        super().__init__()
        # whole patches: padding may precede the history, and follow the horizon
        horizon_patch = min(patch_length, horizon)
        horizon_tokens = -(-horizon // horizon_patch)
        history_tokens = -(-memory_length // patch_length)
        self.memory_length = memory_length
        self.memory_steps = history_tokens * patch_length
        self.history_steps = max(history, self.memory_steps)
        self.horizon_steps = horizon_tokens * horizon_patch
        self.output_sizes = [target.output_size for target in targets]
        self.lagged_targets = lagged_targets
        self.missing = missing

        self.categorical_embedding = CategoricalEmbedding(embeddings)
        sizes = self.categorical_embedding.sizes
        self.history_features = FeatureSelector(history_features, sizes)
        self.horizon_features = FeatureSelector(horizon_features, sizes)
        self.static_features = FeatureSelector(static_features, sizes)
        encoders = [
            make_target_encoder(
                target, self.history_steps, horizon, moving_averages, instance_normalization
            )
            for target in targets
        ]
        self.target_encoders = nn.ModuleList(encoders)
        step_size = sum(encoder.size for encoder in encoders) + self.history_features.size
        step_size += len(missing.targets) + len(missing.history_reals)
        self.history_embedding = PatchEmbedding(step_size, patch_length, hidden_size)
        self.horizon_embedding = PatchEmbedding(
            self.horizon_features.size + len(missing.horizon_reals), horizon_patch, hidden_size
        )
        tokens = history_tokens + horizon_tokens
        self.position_embedding = nn.Parameter(0.5 * torch.randn(tokens, hidden_size))
        self.static_projection = (
            nn.Linear(self.static_features.size, hidden_size) if any(static_features) else None
        )
        self.token_norm = nn.LayerNorm(hidden_size)
        self.memory = mLSTMLayer(
            hidden_size, hidden_size, num_layers, dropout, num_heads=num_heads, batch_first=True
        )
        self.memory_norm = nn.LayerNorm(hidden_size)
        self.residual_head = nn.Linear(hidden_size, horizon_patch * sum(self.output_sizes))
        self.amplitude_head = (
            nn.Linear(hidden_size, len(COMPONENTS) * len(targets)) if amplitudes else None
        )
        for head in (self.residual_head, self.amplitude_head):
            if head is not None:  # at first, the components pass nearly unchanged
                nn.init.normal_(head.weight, std=0.01 / hidden_size**0.5)
                nn.init.zeros_(head.bias)

    def linear_maps(self) -> list[DecompositionLinear]:
        """Return the linear maps of trend, cycle and season of each target."""
        return [module for module in self.modules() if isinstance(module, DecompositionLinear)]

    def forward(self, inputs: NetworkInputs, flip: Tensor | None = None) -> list[TargetForecast]:
        """Forecast every target.

        Parameters
        ----------
        inputs : NetworkInputs
            The batch.
        flip : Tensor, optional
            Samples to negate, and to negate the forecast of, bool, (B, 1, 1): for training.
        """
        parts, _ = self.decompose(inputs, flip)
        return [part.add_up() for part in parts]

    def decompose(
        self, inputs: NetworkInputs, flip: Tensor | None = None
    ) -> tuple[list[ForecastParts], MemoryOutput]:
        """Return the parts of every target's forecast, and what the memory reads and returns.

        Parameters
        ----------
        inputs, flip
            As in :meth:`forward`.
        """
        targets = self._encode_targets(inputs)
        if flip is not None:
            targets = [target.flip(flip) for target in targets]
        memory = self._run_memory(inputs, targets)
        steps = inputs.horizon_reals.shape[1]
        parts = []
        for target, residual, amplitudes, scale in zip(
            targets, memory.residuals, memory.amplitudes, inputs.target_scales, strict=True
        ):
            amplitudes = amplitudes[:, :steps]
            components = target.components[:, :steps] * amplitudes
            if target.statistics is not None:
                scale = target.statistics.target_scale
            parts.append(
                ForecastParts(components, residual[:, :steps], amplitudes, scale, target.flipped)
            )
        return parts, memory

    def _encode_targets(self, inputs: NetworkInputs) -> list[EncodedTarget]:
        lengths, steps = inputs.history_lengths, self.history_steps
        mask = partial_mask(lengths, steps, right=True)
        recent = mask
        if self.memory_length < steps:
            recent = partial_mask(lengths.clamp_max(self.memory_length), steps, right=True)
        return [
            encoder(align_right(history, lengths, steps), mask, recent, scale, reference)
            for encoder, history, scale, reference in zip(
                self.target_encoders,
                inputs.target_histories,
                inputs.target_scales,
                inputs.reference_scales,
                strict=True,
            )
        ]

    def _run_memory(self, inputs: NetworkInputs, targets: list[EncodedTarget]) -> MemoryOutput:
        """Run the mLSTM over history and horizon; the heads read the tokens of the horizon."""
        history_tokens, history_mask = self._embed_history(inputs, targets)
        horizon_tokens, horizon_mask, static = self._embed_horizon(inputs, targets)
        sizes = [history_tokens.shape[1], horizon_tokens.shape[1]]
        positions = self.position_embedding.split(sizes)
        parts = [history_tokens + positions[0], horizon_tokens + positions[1]]
        if static is not None:
            parts = [part + static[:, None] for part in parts]
        mask = torch.cat([history_mask, horizon_mask], dim=1)
        normed = self.token_norm(torch.cat(parts, dim=1))
        hidden, _ = self.memory(normed, mask=mask)
        # the history is left out before the sum, which costs less
        hidden = self.memory_norm(parts[1] + hidden[:, sizes[0] :])
        return MemoryOutput(
            self._unfold_residual(self.residual_head(hidden)),
            self._unfold_amplitudes(hidden),
            normed,
            mask,
        )

    def _embed_history(
        self, inputs: NetworkInputs, targets: list[EncodedTarget]
    ) -> tuple[Tensor, Tensor]:
        """Embed the history as tokens (B, N, H), with a mask of the valid ones, (B, N)."""
        lengths, steps = inputs.history_lengths, self.memory_steps
        valid = partial_mask(lengths.clamp_max(self.memory_length), steps, right=True)
        reals = align_right(inputs.history_reals, lengths, steps).to(self.position_embedding.dtype)
        marks = mark_missing(reals, self.missing.history_reals)
        if self.history_features.columns:
            reals = self._normalize_lags(fill_nan(reals, valid), targets)
        codes = align_right(inputs.history_categoricals, lengths, steps)
        targets = [target.latest(steps) for target in targets]
        parts = [target.features for target in targets]
        parts.append(self.history_features(reals, self.categorical_embedding(codes)))
        parts += [targets[number].missing_mark(reals.dtype) for number in self.missing.targets]
        return self.history_embedding([*parts, *marks], valid)

    def _embed_horizon(
        self, inputs: NetworkInputs, targets: list[EncodedTarget]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Embed the horizon as tokens, with their mask, and static variables as (B, H)."""
        steps = self.horizon_steps
        valid = partial_mask(inputs.horizon_lengths, steps)
        reals = pad_steps(inputs.horizon_reals.to(self.position_embedding.dtype), steps)
        marks = mark_missing(reals, self.missing.horizon_reals)
        reals = fill_columns(reals, valid, self.missing.in_horizon)
        reals = self._normalize_lags(reals, targets)
        embedded = self.categorical_embedding(pad_steps(inputs.horizon_categoricals, steps))
        features = [self.horizon_features(reals, embedded), *marks]
        tokens, mask = self.horizon_embedding(features, valid)
        if self.static_projection is None:
            return tokens, mask, None
        # the first step of the horizon is never padding, as that of the history may be
        first = {name: vectors[:, 0] for name, vectors in embedded.items()}
        return tokens, mask, self.static_projection(self.static_features(reals[:, 0], first))

    def _normalize_lags(self, reals: Tensor, targets: list[EncodedTarget]) -> Tensor:
        """Scale columns that hold earlier values of a target as the target is scaled."""
        if not self.lagged_targets:
            return reals
        columns = list(reals.unbind(-1))
        for column, number in self.lagged_targets.items():
            statistics = targets[number].statistics
            if statistics is not None:
                columns[column] = statistics.normalize(columns[column])
        return torch.stack(columns, dim=-1)

    def _unfold_residual(self, patches: Tensor) -> list[Tensor]:
        """Unfold the residuals of patches: for each target (B, steps, output_size)."""
        steps = unfold(_at_least_float32(patches), self.horizon_embedding.patch_length)
        return list(steps.split(self.output_sizes, -1))

    def _unfold_amplitudes(self, hidden: Tensor) -> list[Tensor]:
        """Return the amplitudes of patches for their steps: for each target (B, steps, 1, 3).

        Without a head they are 1, and broadcast.
        """
        if self.amplitude_head is None:
            one = torch.ones((), dtype=torch.float32, device=hidden.device)
            fixed = one.expand(1, self.horizon_steps, 1, len(COMPONENTS))
            return [fixed] * len(self.output_sizes)
        amplitudes = 1 + _at_least_float32(self.amplitude_head(hidden)).tanh()
        steps = amplitudes.repeat_interleave(self.horizon_embedding.patch_length, dim=1)
        return list(steps[:, :, None].split(len(COMPONENTS), -1))


def _at_least_float32(x: Tensor) -> Tensor:
    """Return x in float32 or wider: 16 bits suffice for weights, not for a forecast of 6490."""
    return x if x.dtype == torch.float64 else x.float()
