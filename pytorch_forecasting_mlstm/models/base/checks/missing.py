"""Which inputs of a model may be missing, which is NaN."""

import re
from typing import Any

from pytorch_forecasting import TimeSeriesDataSet

from ....data.missing_values import missing_names

__all__ = [
    "find_missing_values",
    "is_lag",
    "lag_source",
    "masks_missing",
    "may_be_missing_in_horizon",
]


def lag_source(name: str) -> str:
    """Return the variable whose earlier values a variable holds; its own name if it is no lag.

    >>> lag_source("price_lagged_by_7"), lag_source("price")
    ('price', 'price')
    """
    return re.sub(r"_lagged_by_\d+$", "", name)


def is_lag(name: str) -> bool:
    """Return whether a variable holds earlier values of another one.

    >>> is_lag("price_lagged_by_7"), is_lag("price")
    (True, False)
    """
    return lag_source(name) != name


def may_be_missing_in_horizon(model: Any, name: str) -> bool:
    """Return whether a model reads a real variable of the horizon that is missing.

    Lags come from the history, where everything may be missing.
    """
    return masks_missing(model) and (is_lag(name) or name in model.hparams.missing_values)


def masks_missing(model: Any) -> bool:
    """Return whether a model masks missing values at all."""
    return model.hparams.get("missing_values") is not None


def find_missing_values(dataset: TimeSeriesDataSet, requested: Any, caller: str) -> list[str]:
    """Return the targets and variables for which a model gets a mark of where they are missing.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        Dataset that the model is made from.
    requested : list of str or None
        What the user asks for. Default: what is missing in the dataset.
    caller : str
        Name to begin the message with.

    Raises
    ------
    ValueError
        If a name is unknown.
    """
    if requested is None:
        return missing_names(dataset)
    known = list(dict.fromkeys([*dataset.target_names, *dataset.reals]))
    unknown = [name for name in requested if name not in known]
    if unknown:
        raise ValueError(
            f"{caller}: missing_values must name targets or real variables of the dataset, "
            f"{known}, got {unknown}; correct or remove these."
        )
    return list(requested)
