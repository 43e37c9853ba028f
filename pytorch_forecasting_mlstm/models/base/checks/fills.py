"""What the host puts into the gaps of a target, which no column of the table shows."""

from pytorch_forecasting import TimeSeriesDataSet

__all__ = ["target_fills"]


def target_fills(dataset: TimeSeriesDataSet) -> dict[str, float]:
    """Return by target what ``constant_fill_strategy`` puts into it; none if there is no gap.

    Of targets of numbers alone: labels are checked by the host.
    """
    windows = dataset.index
    rows = windows["index_end"] - windows["index_start"] + 1
    if not (rows < windows["sequence_length"]).any():
        return {}
    fills = dataset.encoded_constant_fill_strategy
    return {
        name: float(fills[f"__target__{name}"])
        for name in dataset.target_names
        if f"__target__{name}" in fills and name not in dataset.flat_categoricals
    }
