"""Names of series in messages, plots and datasets."""

from __future__ import annotations

import pandas as pd

from ..._messages import printable


def label_series(groups: pd.DataFrame, series: int) -> str:
    """Name one series by its group columns, such as "store=north, item=7"."""
    if groups.columns.empty:
        return "the series"
    names = groups.iloc[series].items()
    return ", ".join(f"{printable(name)}={printable(value)}" for name, value in names)
