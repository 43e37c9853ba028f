"""What requires single samples, at the speed of pytorch-forecasting."""

import warnings
from functools import cache
from typing import Any

from pytorch_forecasting.data import EncoderNormalizer, MultiNormalizer, TimeSeriesDataSet

__all__ = ["fallback_reason", "warn_single_samples"]


def fallback_reason(dataset: Any, history_normalizers: dict[str, EncoderNormalizer]) -> str | None:
    """Name the setting that requires single samples, if there is one.

    Parameters
    ----------
    dataset : BatchedTimeSeriesDataSet
        The dataset.
    history_normalizers : dict of str to EncoderNormalizer
        Normalizers of its variables that are fitted to every history.
    """
    if type(dataset).__getitem__ is not TimeSeriesDataSet.__getitem__:
        return f"{type(dataset).__name__} has its own __getitem__"
    targets = dict(zip(dataset.target_names, dataset.target_normalizers, strict=True))
    for name, normalizer in (targets | history_normalizers).items():
        kind = type(normalizer)
        if issubclass(kind, EncoderNormalizer) and kind is not EncoderNormalizer:
            return f"the normalizer of {name!r}, {kind.__name__}, subclasses EncoderNormalizer"
    kind = type(dataset.target_normalizer)
    if issubclass(kind, MultiNormalizer) and kind is not MultiNormalizer:
        return f"the target normalizer, {kind.__name__}, subclasses MultiNormalizer"
    if dataset.add_target_scales:
        for target in targets:
            for name in (f"{target}_center", f"{target}_scale"):
                if name in history_normalizers:
                    return f"the scaler of {name!r} is an EncoderNormalizer"
    overwritten = dataset._overwrite_values
    if overwritten is not None and isinstance(overwritten["target"], slice):
        return "values are overwritten at a slice of positions"
    return None


@cache
def warn_single_samples() -> None:
    """Warn, once per process, that a dataset around this one prevents gathering whole batches."""
    warnings.warn(
        "BatchedTimeSeriesDataSet was asked for single samples, at the speed of TimeSeriesDataSet: "
        "the dataset of the loader passes no batches on, like torch's ConcatDataset; build one "
        "dataset of all tables instead",
        UserWarning,
        stacklevel=3,
    )
