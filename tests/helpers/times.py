"""Tables with extreme times and steps."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.tables import noisy_season, read_panel
from pytorch_forecasting_mlstm.cli.output import write_forecast
from pytorch_forecasting_mlstm.forecaster.forecast_frame import forecast_frame
from pytorch_forecasting_mlstm.forecaster.panel import Panel

INT = np.iinfo(np.int64)
HORIZON = 3


def write_times(path: Path, times: dict[str, Any]) -> Path:
    """Write a table of series with these times."""
    parts = [
        pd.DataFrame({"g": name, "t": [str(t) for t in values], "y": noisy_season(len(values))})
        for name, values in times.items()
    ]
    pd.concat(parts).to_csv(path, index=False)
    return path


def read_times_panel(path: Path, horizon: int = HORIZON) -> Panel:
    return read_panel(path, time="t", target="y", group=("g",), horizon=horizon)


def times_ahead(table: Panel) -> list[list[str]]:
    """Return the times of the written forecast for every series."""
    count = len(table.values)
    tidy = forecast_frame(table, np.zeros((count, HORIZON, 7)))
    file = io.StringIO()
    write_forecast(tidy, file, quote_formulas=False)  # type: ignore[arg-type]
    file.seek(0)
    return pd.read_csv(file, dtype=str)["t"].to_numpy().reshape(count, HORIZON).tolist()


def iso(start: str, length: int, step: int, unit: str) -> list[str]:
    times = np.datetime64(start, "us") + step * np.arange(length) * np.timedelta64(1, unit)
    return [str(time) for time in times]


def months(year: int, length: int, step: int = 1) -> list[str]:
    return [f"{year + k * step // 12:04d}-{k * step % 12 + 1:02d}-01" for k in range(length)]


def business_days(start: str, length: int) -> list[str]:
    return [str(day) for day in np.busday_offset(start, np.arange(length), roll="forward")]


#: Pairs of series that are far apart.
FAR = {
    "integers": (range(40), range(10**15, 10**15 + 40)),
    "a billion steps": (range(0, 280, 7), range(7 * 10**9, 7 * 10**9 + 280, 7)),
    "minutes": (iso("0001-01-01", 40, 1, "m"), iso("9900-01-01", 40, 1, "m")),
    "hours": (iso("0900-01-01", 40, 1, "h"), iso("9900-01-01", 40, 1, "h")),
    "microseconds": (iso("1700-01-01", 40, 10, "us"), iso("1900-01-02", 40, 10, "us")),
    "days": (iso("0900-01-01", 40, 1, "D"), iso("9900-01-01", 40, 1, "D")),
    "business days": (business_days("0900-01-06", 43), business_days("9900-01-04", 43)),
    "weeks": (iso("0900-01-01", 40, 7, "D"), iso("9900-01-05", 40, 7, "D")),
    "months": (months(900, 40), months(9900, 40)),
    "quarters": (months(900, 40, 3), months(9900, 40, 3)),
    "years": (months(900, 40, 12), months(9900, 40, 12)),
    "business hours": (
        pd.date_range("1700-01-04 09:00", periods=40, freq="bh"),
        pd.date_range("2200-01-06 09:00", periods=40, freq="bh"),
    ),
}
