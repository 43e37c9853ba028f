"""Scale the targets of a batch, and the covariates that are normalized by their history."""

from typing import Any

import numpy as np
import torch
from pytorch_forecasting.data import EncoderNormalizer
from torch import Tensor

from .encoder_normalization import encoder_scales, store_last_fit
from .gather import BatchValues
from .missing_values import SeriesFallback
from .steps import Steps
from .windows import Windows


def encoder_normalizers(dataset: Any) -> dict[str, EncoderNormalizer]:
    """List the normalizers of covariates and lags that are fitted to each history.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        Dataset.

    Returns
    -------
    dict
        Normalizer by the name of the covariate or lag, in the order of ``dataset.reals``. Targets
        are not among them.
    """
    targets, lagged = dataset.target_names, dataset.lagged_variables
    scalers = [
        *dataset._scalers.items(),
        *zip(targets, dataset.target_normalizers, strict=True),
    ]
    scaled = {name for name, scaler in scalers if isinstance(scaler, EncoderNormalizer)}
    transformers = {
        name: dataset.get_transformer(name)
        for name in dataset.reals
        if lagged.get(name, name) in scaled and name not in targets
    }
    return {
        name: transformer
        for name, transformer in transformers.items()
        if isinstance(transformer, EncoderNormalizer)
    }


def scale_targets(
    dataset: Any, windows: Windows, steps: Steps, values: BatchValues
) -> list[Tensor]:
    """Scale the targets whose normalizer is fitted to each history.

    Parameters
    ----------
    dataset : BatchedTimeSeriesDataSet
        Normalizers and names of the variables.
    windows, steps : Windows, Steps
        Samples of the batch.
    values : BatchValues
        Scaled targets and target scales are written to ``values.reals``.

    Returns
    -------
    list of Tensor
        For each target its center and scale, shape ``(B, 2)``.
    """
    names, reals = dataset.reals, values.reals
    fallback = SeriesFallback.of(dataset)
    scales = []
    for position, (name, normalizer) in enumerate(
        zip(dataset.target_names, dataset.target_normalizers, strict=True)
    ):
        target = values.targets[position]
        if not isinstance(normalizer, EncoderNormalizer):
            series_scales = dataset._series_scales(position, normalizer)
            scales.append(series_scales.lookup(windows.first_row).to(target.device))
            continue
        scale = encoder_scales(
            normalizer, target, windows.encoder_length, may_be_missing=fallback is not None
        )
        if fallback is not None:
            scale = fallback.fill(scale, normalizer, name, windows.first_row)
        store_last_fit(normalizer, scale)
        if name in names:
            reals.change(names.index(name), normalizer.transform(target, target_scale=scale))
        if dataset.add_target_scales:
            for part, feature in enumerate([f"{name}_center", f"{name}_scale"]):
                encoded = dataset.transform_values(feature, scale[:, part].cpu())
                constant = torch.as_tensor(encoded).to(reals.dtype).to(target.device)
                reals.change(
                    names.index(feature), constant.unsqueeze(1).expand(-1, len(steps.step))
                )
        scales.append(scale)
    return scales


def scale_covariates(
    dataset: Any,
    windows: Windows,
    values: BatchValues,
    target_scales: list[Tensor],
    history_normalizers: dict[str, EncoderNormalizer],
) -> None:
    """Scale covariates by their histories, then lags by the scale of the original variable.

    Parameters
    ----------
    dataset : BatchedTimeSeriesDataSet
        Names of the variables.
    windows : Windows
        Samples of the batch.
    values : BatchValues
        Scaled variables are written to ``values.reals``.
    target_scales : list of Tensor
        What `scale_targets` returned.
    history_normalizers : dict
        What `encoder_normalizers` returned.
    """
    if not history_normalizers:
        return
    names, lagged, reals = dataset.reals, dataset.lagged_variables, values.reals
    fallback = SeriesFallback.of(dataset)
    covariates = {
        name: scaler for name, scaler in history_normalizers.items() if name not in lagged
    }
    scales: dict[str, Tensor] = {}
    for group in _with_equal_settings(covariates):
        normalizer, columns = covariates[group[0]], [names.index(name) for name in group]
        stacked = torch.cat([reals.read(column) for column in columns])
        group_scales = encoder_scales(
            normalizer,
            stacked,
            np.tile(windows.encoder_length, len(group)),
            may_be_missing=fallback is not None,
        )
        if fallback is not None:
            parts = zip(group, group_scales.chunk(len(group)), strict=True)
            group_scales = torch.cat(
                [fallback.fill(part, normalizer, name, windows.first_row) for name, part in parts]
            )
        scaled = normalizer.transform(stacked, target_scale=group_scales).chunk(len(group))
        scales.update(zip(group, group_scales.chunk(len(group)), strict=True))
        for column, covariate in zip(columns, scaled, strict=True):
            reals.change(column, covariate)

    # If variables share a normalizer, lags get the scale that it was fitted to last.
    last_fit = {
        id(normalizer): scale
        for normalizer, scale in zip(dataset.target_normalizers, target_scales, strict=True)
    }
    for name, normalizer in covariates.items():
        store_last_fit(normalizer, scales[name])
        last_fit[id(normalizer)] = scales[name]
    for name, normalizer in history_normalizers.items():
        if name in lagged:
            column = names.index(name)
            lag, scale = reals.read(column), last_fit[id(normalizer)]
            reals.change(column, normalizer.transform(lag, target_scale=scale))


def _with_equal_settings(normalizers: dict[str, EncoderNormalizer]) -> list[list[str]]:
    """Group variables whose normalizers have equal settings: one pass scales them all."""
    groups: list[tuple[Any, list[str]]] = []
    for name, normalizer in normalizers.items():
        settings = (
            normalizer.method,
            normalizer.center,
            normalizer.max_length,
            normalizer.transformation,
            normalizer._method_kwargs,
        )
        group = next((names for other, names in groups if other == settings), None)
        if group is None:
            groups.append((settings, group := []))
        group.append(name)
    return [names for _, names in groups]
