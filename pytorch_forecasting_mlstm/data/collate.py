"""One batch, from the data to what a model is given, in the order of the host's ``__getitem__``."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_forecasting.data.encoders import EncoderNormalizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .encoder_normalization import (
    encoder_scales,
    leave_fitted,
    scaled,
)
from .gather import Columns, Steps, cut, padded_steps, take
from .windows import BoolArray, Windows, sample_windows

Batch = tuple[dict[str, Any], tuple[Any, Tensor | None]]


class Values(NamedTuple):
    """Data of a batch on their way to the model.

    Parameters
    ----------
    reals : Columns
        one for each of ``dataset.reals``
    categoricals : Columns
        one for each of ``dataset.flat_categoricals``
    targets : list of Tensor
        unscaled, each of shape ``(B, T)``
    """

    reals: Columns
    categoricals: Columns
    targets: list[Tensor]


def assemble(
    dataset: Any, numbers: Sequence[int], data: dict[str, Any], by_encoder: dict[str, Any]
) -> Batch:
    """Gather and prepare a batch.

    Parameters
    ----------
    dataset : BatchedTimeSeriesDataSet
        settings, index and normalizers
    numbers : sequence of int
        samples of the batch
    data : dict
        ``dataset.data``, or a copy of it on another device
    by_encoder : dict
        what `encoder_normalizers` finds

    Returns
    -------
    tuple
        ``x, (target, weight)`` as the host's ``_collate_fn`` returns them
    """
    windows = sample_windows(dataset, numbers)
    steps = padded_steps(windows, data["time"])
    values = Values(
        reals=Columns(data["reals"], steps),
        categoricals=Columns(data["categoricals"], steps),
        targets=[take(target, steps) for target in data["target"]],
    )
    names = dataset.reals

    if windows.gapped is not None and steps.missing is not None:
        _fill_missing(dataset, names, windows, windows.gapped, steps.missing, values)
    if dataset.randomize_length is not None and not windows.encoder_length.all():
        _hide_categories(dataset, steps, values)
    _describe_position(dataset, names, windows, steps, values)
    target_scales = _scale_targets(dataset, names, windows, steps, values)
    _scale_covariates(dataset, names, windows, values, target_scales, by_encoder)
    if dataset._overwrite_values is not None:
        _overwrite(dataset, names, numbers, windows, steps, values)

    encoder, decoder = steps.encoder, steps.decoder
    encoder_targets = [cut(target, encoder) for target in values.targets]
    decoder_targets = [cut(target, decoder) for target in values.targets]
    multi = dataset.multi_target
    # whatever a transformation gives, the host makes float32 of the scale of an encoder
    target_scales = [
        scale.float() if isinstance(normalizer, EncoderNormalizer) else scale
        for scale, normalizer in zip(target_scales, dataset.target_normalizers, strict=True)
    ]
    target = decoder_targets if multi else decoder_targets[0]
    weight = None if data["weight"] is None else cut(take(data["weight"], steps), decoder)
    return (
        dict(
            encoder_cat=values.categoricals.cut(encoder),
            encoder_cont=values.reals.cut(encoder),
            encoder_target=encoder_targets if multi else encoder_targets[0],
            encoder_lengths=encoder.length.clone(),
            decoder_cat=values.categoricals.cut(decoder),
            decoder_cont=values.reals.cut(decoder),
            decoder_target=target,
            decoder_lengths=decoder.length.clone(),
            decoder_time_idx=steps.decoder_time.unsqueeze(1) + steps.step[: decoder.width],
            groups=data["groups"].index_select(0, steps.first_row),
            target_scale=target_scales if multi else target_scales[0],
        ),
        (target, weight),
    )


def _fill_missing(
    dataset: Any,
    names: list[str],
    windows: Windows,
    gapped: BoolArray,
    missing: Tensor,
    values: Values,
) -> None:
    """Put in what the data lack; rows that stand in for missing steps are already there."""
    reals, categoricals = values.reals, values.categoricals
    if dataset.time_idx in names:
        place = names.index(dataset.time_idx)
        column = dataset.data["reals"][:, place]
        reals.change(place, _even_times(column, windows, gapped, reals.read(place)))
    unscaled = {f"__target__{name}": place for place, name in enumerate(dataset.target_names)}
    for name, value in dataset.encoded_constant_fill_strategy.items():
        if name in names:
            place = names.index(name)
            reals.change(place, _filled(reals.read(place), missing, value))
        elif name in unscaled:
            place = unscaled[name]
            values.targets[place] = _filled(values.targets[place], missing, value)
        elif name in dataset.flat_categoricals:
            place = dataset.flat_categoricals.index(name)
            categoricals.change(place, _filled(categoricals.read(place), missing, value))
        elif name not in dataset.target_names:  # else the target is no input of the model
            raise KeyError(f"Variable {name} is not known and thus cannot be filled in")


def _filled(values: Tensor, missing: Tensor, value: Any) -> Tensor:
    values = values.clone()
    values[missing] = value  # an assignment as in the host, which refuses what the host refuses
    return values


def _even_times(column: Tensor, windows: Windows, gapped: BoolArray, times: Tensor) -> Tensor:
    """Time index as a real variable: in windows with gaps, even steps from first to last."""
    samples = np.flatnonzero(gapped)
    rows = np.stack([windows.first_row, windows.last_row])[:, samples]
    first, last = column[torch.from_numpy(rows)].tolist()
    length, skipped = windows.length[samples].tolist(), windows.skipped[samples].tolist()
    # Window by window, since only torch.linspace itself rounds as torch.linspace does.
    lines = [
        torch.linspace(start, end, steps, dtype=column.dtype)[skip : skip + times.shape[1]]
        for start, end, steps, skip in zip(first, last, length, skipped, strict=True)
    ]
    even = pad_sequence(lines, batch_first=True).to(times.device)
    times = times.clone()
    times[torch.from_numpy(samples).to(times.device), : even.shape[1]] = even
    return times


def _hide_categories(dataset: Any, steps: Steps, values: Values) -> None:
    """Where nothing is left of the encoder, categories that may be unknown are: 0 means that."""
    empty = (steps.encoder.length == 0).unsqueeze(1)
    for name in dataset.dropout_categoricals:
        place = dataset.flat_categoricals.index(name)
        shown = values.categoricals.read(place)
        values.categoricals.change(place, shown.masked_fill(empty, 0))


def _describe_position(
    dataset: Any, names: list[str], windows: Windows, steps: Steps, values: Values
) -> None:
    """Set the variables that depend on where the sample is split."""
    longest = dataset.max_encoder_length
    device = steps.step.device
    if dataset.add_relative_time_idx:
        place, total = names.index("relative_time_idx"), len(steps.step)
        if windows.equal:
            before = int(windows.encoder_length[0])
            alike = _relative_steps(before, total, longest, values.reals.dtype, device)
            relative = alike.expand(len(steps.first_row), -1)
        else:
            # A divisor on the device: by a number, CUDA would multiply with the rounded inverse.
            divisor = torch.tensor(longest, dtype=values.reals.dtype, device=device)
            relative = (steps.step - steps.encoder.length.unsqueeze(1)).to(divisor.dtype) / divisor
        values.reals.change(place, relative)
    if dataset.add_encoder_length:
        length = (windows.encoder_length - 0.5 * longest) / longest * 2.0
        known = torch.from_numpy(length).to(values.reals.dtype).to(device)
        values.reals.change(names.index("encoder_length"), _all_steps(known, steps))


@lru_cache(maxsize=16)
def _relative_steps(
    before: int, total: int, longest: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Count steps from the end of the encoder, in longest encoders: the same for most batches."""
    return (torch.arange(-before, total - before, dtype=dtype) / longest).to(device)


def _all_steps(values: Tensor, steps: Steps) -> Tensor:
    return values.unsqueeze(1).expand(-1, len(steps.step))


def _scale_targets(
    dataset: Any, names: list[str], windows: Windows, steps: Steps, values: Values
) -> list[Tensor]:
    """Scale targets by their encoders, and find the scale of every target.

    Returns
    -------
    list of Tensor
        for each target its scale, shape ``(B, 2)``
    """
    scales = []
    for position, (name, normalizer) in enumerate(
        zip(dataset.target_names, dataset.target_normalizers, strict=True)
    ):
        target = values.targets[position]
        if not isinstance(normalizer, EncoderNormalizer):
            of_series = dataset._series_scales(position, normalizer).of(windows.first_row)
            scales.append(of_series.to(target.device))
            continue
        scale = encoder_scales(normalizer, target, windows.encoder_length)
        leave_fitted(normalizer, scale)
        if name in names:
            values.reals.change(names.index(name), scaled(normalizer, target, scale, windows.total))
        if dataset.add_target_scales:
            for part, feature in enumerate([f"{name}_center", f"{name}_scale"]):
                encoded = dataset.transform_values(feature, scale[:, part].cpu())
                known = torch.as_tensor(encoded).to(values.reals.dtype).to(target.device)
                values.reals.change(names.index(feature), _all_steps(known, steps))
        scales.append(scale)
    return scales


def _scale_covariates(
    dataset: Any,
    names: list[str],
    windows: Windows,
    values: Values,
    target_scales: list[Tensor],
    by_encoder: dict[str, Any],
) -> None:
    """Scale covariates by their encoders, then lags by what was found for the variable itself."""
    lagged = dataset.lagged_variables
    # Of a normalizer that serves several variables, lags see what it was fitted to last.
    fitted = {
        id(normalizer): scale
        for normalizer, scale in zip(dataset.target_normalizers, target_scales, strict=True)
    }
    strided = _strided(dataset, windows)
    change = values.reals.change
    own = {name: each for name, each in by_encoder.items() if name not in lagged}
    scale_of: dict[str, Tensor] = {}
    for alike in _with_equal_settings(own):
        count, normalizer = len(alike), own[alike[0]]
        places = [names.index(name) for name in alike]
        covariates = torch.cat([values.reals.read(place) for place in places])
        lengths, totals = (np.tile(n, count) for n in (windows.encoder_length, windows.total))
        apart = None if strided is None else np.tile(strided, count)
        scales = encoder_scales(normalizer, covariates, lengths, apart)
        covariates = scaled(normalizer, covariates, scales, totals, apart)
        scale_of.update(zip(alike, scales.chunk(count), strict=True))
        for place, covariate in zip(places, covariates.chunk(count), strict=True):
            change(place, covariate)
    for name, normalizer in own.items():
        leave_fitted(normalizer, scale_of[name])
        fitted[id(normalizer)] = scale_of[name]
    for name, normalizer in by_encoder.items():
        if name in lagged:
            place = names.index(name)
            lag, scale = values.reals.read(place), fitted[id(normalizer)]
            change(place, scaled(normalizer, lag, scale, windows.total, strided))


def _with_equal_settings(by_encoder: dict[str, Any]) -> list[list[str]]:
    """Group variables whose normalizers do the same: one pass serves them all."""
    groups: list[tuple[Any, list[str]]] = []
    for name, normalizer in by_encoder.items():
        settings = (
            normalizer.method,
            normalizer.center,
            normalizer.max_length,
            normalizer.transformation,
            normalizer._method_kwargs,
        )
        alike = next((names for known, names in groups if known == settings), None)
        if alike is None:
            groups.append((settings, alike := []))
        alike.append(name)
    return [names for _, names in groups]


def encoder_normalizers(dataset: Any) -> dict[str, Any]:
    """List the normalizers that are fitted to every encoder, those of the targets apart.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        dataset

    Returns
    -------
    dict
        normalizer by the name of the covariate or lag, in the order of ``dataset.reals``
    """
    targets, lagged = dataset.target_names, dataset.lagged_variables
    found = {
        name
        for name, scaler in [
            *dataset._scalers.items(),
            *zip(targets, dataset.target_normalizers, strict=True),
        ]
        if isinstance(scaler, EncoderNormalizer)
    }
    chosen = {
        name: dataset.get_transformer(name)
        for name in dataset.reals
        if lagged.get(name, name) in found and name not in targets
    }
    return {
        name: scaler for name, scaler in chosen.items() if isinstance(scaler, EncoderNormalizer)
    }


def _strided(dataset: Any, windows: Windows) -> BoolArray | None:
    """Tell in which windows the host's copy of a real variable is not contiguous in memory.

    A slice is laid out as the data are, which come from pandas column by column. Filling gaps lays
    it out row by row.
    """
    if dataset.data["reals"].shape[1] == 1:
        return None
    if not dataset._stock_by_column:
        return np.ones(len(windows.length), dtype=bool)
    return windows.gapped


def _overwrite(
    dataset: Any,
    names: list[str],
    numbers: Sequence[int],
    windows: Windows,
    steps: Steps,
    values: Values,
) -> None:
    """Replace a variable by what `set_overwrite_values` was given."""
    wanted = dataset._overwrite_values
    name, new = wanted["variable"], wanted["values"]
    if name in names:
        columns, place = values.reals, names.index(name)
    elif name in dataset.flat_categoricals:
        columns, place = values.categoricals, dataset.flat_categoricals.index(name)
    else:
        dataset[int(numbers[0])]  # raises the host's own error
        raise KeyError(name)

    split = steps.encoder.length.unsqueeze(1)
    if wanted["target"] == "encoder":
        replaced, rank, counts = steps.step < split, steps.step, windows.encoder_length
    elif wanted["target"] == "all":
        replaced, rank, counts = torch.ones_like(split, dtype=torch.bool), steps.step, windows.total
    else:  # as in the host
        replaced, rank, counts = steps.step >= split, steps.step - split, windows.decoder_length
    new = torch.as_tensor(new).to(columns.dtype).to(split.device)
    if new.ndim:
        unequal = counts != len(new)
        if unequal.any():
            sample = int(unequal.argmax())
            dataset[int(numbers[sample])]  # raises the host's own error, if lengths are not random
            raise RuntimeError(
                f"{len(new)} values cannot overwrite the {counts[sample]} steps that sample "
                f"{numbers[sample]} has of {name!r}"
            )
        new = new[rank.clamp(0, len(new) - 1)]
    columns.change(place, torch.where(replaced, new, columns.read(place)))
