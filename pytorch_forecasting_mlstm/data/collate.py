"""Turn the data of a dataset into a batch for a model.

The order of operations is that of ``TimeSeriesDataSet.__getitem__``.
"""

from collections.abc import Sequence
from typing import Any

from pytorch_forecasting.data import EncoderNormalizer
from torch import Tensor

from .fills import fill_missing_steps, hide_categories
from .gather import BatchValues, Columns, gather_steps, slice_padded
from .overwrites import overwrite_values
from .position_features import add_position_features
from .scaling import scale_covariates, scale_targets
from .steps import padded_steps
from .windows import sample_windows

Batch = tuple[dict[str, Any], tuple[Any, Tensor | None]]


def collate_batch(
    dataset: Any,
    positions: Sequence[int],
    data: dict[str, Any],
    history_normalizers: dict[str, EncoderNormalizer],
) -> Batch:
    """Gather and prepare a batch.

    Parameters
    ----------
    dataset : BatchedTimeSeriesDataSet
        Settings, index and normalizers.
    positions : sequence of int
        Positions of the samples in ``dataset.index``.
    data : dict
        ``dataset.data``, or a copy of it on another device.
    history_normalizers : dict
        The result of `encoder_normalizers` for the dataset.

    Returns
    -------
    tuple
        ``x, (target, weight)``, as ``TimeSeriesDataSet._collate_fn`` returns them.
    """
    windows = sample_windows(dataset, positions)
    steps = padded_steps(windows, data["time"])
    values = BatchValues(
        reals=Columns(data["reals"], steps),
        categoricals=Columns(data["categoricals"], steps),
        targets=[gather_steps(target, steps) for target in data["target"]],
    )
    if windows.has_gap is not None and steps.missing is not None:
        fill_missing_steps(dataset, windows, windows.has_gap, steps.missing, values)
    if dataset.randomize_length is not None and not windows.encoder_length.all():
        hide_categories(dataset, steps, values)
    add_position_features(dataset, windows, steps, values)
    target_scales = scale_targets(dataset, windows, steps, values)
    scale_covariates(dataset, windows, values, target_scales, history_normalizers)
    if dataset._overwrite_values is not None:
        overwrite_values(dataset, positions, windows, steps, values)

    # pytorch-forecasting returns these in float32, whatever the dtype of a transformation.
    target_scales = [
        scale.float() if isinstance(normalizer, EncoderNormalizer) else scale
        for scale, normalizer in zip(target_scales, dataset.target_normalizers, strict=True)
    ]
    encoder, decoder = steps.encoder, steps.decoder
    encoder_targets = [slice_padded(target, encoder) for target in values.targets]
    decoder_targets = [slice_padded(target, decoder) for target in values.targets]
    multi = dataset.multi_target
    target = decoder_targets if multi else decoder_targets[0]
    weight = data["weight"]
    if weight is not None:
        weight = slice_padded(gather_steps(weight, steps), decoder)
    return (
        dict(
            encoder_cat=values.categoricals.slice_padded(encoder),
            encoder_cont=values.reals.slice_padded(encoder),
            encoder_target=encoder_targets if multi else encoder_targets[0],
            encoder_lengths=encoder.length.clone(),
            decoder_cat=values.categoricals.slice_padded(decoder),
            decoder_cont=values.reals.slice_padded(decoder),
            decoder_target=target,
            decoder_lengths=decoder.length.clone(),
            decoder_time_idx=steps.decoder_time.unsqueeze(1) + steps.step[: decoder.width],
            groups=data["groups"].index_select(0, steps.first_row),
            target_scale=target_scales if multi else target_scales[0],
        ),
        (target, weight),
    )
