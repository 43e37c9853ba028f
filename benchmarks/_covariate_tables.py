"""The tables of benchmarks/covariates.py, and what of them is known when.

Nothing here is downloaded: the files are named relative to a folder that the user passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pytorch_forecasting_mlstm.cli.run_demo import electricity_demand

MAX_WINDOWS = 10
SMALL_SERIES = 12


@dataclass(frozen=True)
class Table:
    """A table, the roles of its columns, and how it is tested.

    Attributes
    ----------
    load : callable
        Reads the table from the folder.
    horizon : int
        Steps to forecast.
    seasons : tuple of int
        Steps of the seasons that a user would name; MASE uses the first.
    time, target : str
        Columns of times and values.
    group, known, past, static : tuple of str
        As for `Forecaster`.
    windows : int, optional
        Number of test windows. Default: as many as a tenth of the series holds, 1 to 10.
    rows : int, optional
        Only so many rows per series are used, those that end with the test windows.
    """

    load: Callable[[Path], pd.DataFrame]
    horizon: int
    seasons: tuple[int, ...]
    time: str
    target: str
    group: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    windows: int | None = None
    rows: int | None = None


@dataclass(frozen=True)
class Task:
    """A table as it is tested: the last `windows` horizons of `data` are forecast."""

    key: str
    spec: Table
    data: pd.DataFrame
    windows: int


def read_task(key: str, folder: Path, development: bool) -> Task:
    """Read a table; in development, cut the test windows off first."""
    spec = TABLES[key]
    data = spec.load(folder)
    columns = (spec.time, *spec.group, spec.target, *spec.known, *spec.past, *spec.static)
    data = data[list(columns)].sort_values([*spec.group, spec.time], ignore_index=True)
    windows = spec.windows or _count_windows(data, spec)
    if development:
        data = data[_rows_to_end(data, spec) >= windows * spec.horizon]
    if spec.rows is not None:
        data = data[_rows_to_end(data, spec) < spec.rows]
    return Task(key, spec, data.reset_index(drop=True), windows)


def _count_windows(data: pd.DataFrame, spec: Table) -> int:
    sizes = data.groupby(list(spec.group)).size() if spec.group else pd.Series([len(data)])
    return min(max(1, math.ceil(0.1 * int(sizes.min()) / spec.horizon)), MAX_WINDOWS)


def _rows_to_end(data: pd.DataFrame, spec: Table) -> pd.Series:
    """Return the number of rows of the series that follow each row."""
    if not spec.group:
        return pd.Series(range(len(data) - 1, -1, -1), index=data.index)
    return data.groupby(list(spec.group)).cumcount(ascending=False)


def _read_csv(file: str, time: str) -> Callable[[Path], pd.DataFrame]:
    return lambda folder: pd.read_csv(folder / file, parse_dates=[time])


def _read_stallion(folder: Path) -> pd.DataFrame:
    data = pd.read_parquet(folder / "stallion/stallion.parquet")
    return data.astype({"agency": str, "sku": str})


def _read_small_monthly(folder: Path) -> pd.DataFrame:
    """Read every 64th of the 767 hospital series in the order of the file, which has no order."""
    data = pd.read_parquet(folder / "gift/hospital.parquet")
    items = data["item"].drop_duplicates().iloc[:: len(data["item"].unique()) // SMALL_SERIES]
    return data[data["item"].isin(items.iloc[:SMALL_SERIES])]


def _read_small_weekly(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "gift/us_births_W.parquet")


SPECIAL_DAYS = [
    "easter_day",
    "good_friday",
    "new_year",
    "christmas",
    "labor_day",
    "independence_day",
    "revolution_day_memorial",
    "regional_games",
    "fifa_u_17_world_cup",
    "football_gold_cup",
    "beer_capital",
    "music_fest",
]

TABLES = {
    "bike_sharing": Table(
        _read_csv("covariates/bike_sharing_dataset_clean.csv", "date_time"),
        horizon=24,
        seasons=(24, 168),
        time="date_time",
        target="users",
        # The weather is taken as known, which is usual for this table; month, hour and weekday
        # follow from the time.
        known=("holiday", "workingday", "weather", "temp", "atemp", "hum", "windspeed"),
    ),
    "bicimad": Table(
        _read_csv("covariates/bicimad_users.csv", "date"),
        horizon=28,
        seasons=(7, 364),
        time="date",
        target="users",
    ),
    "australia_tourism": Table(
        _read_csv("covariates/australia_tourism.csv", "date_time"),
        horizon=8,
        seasons=(4,),
        time="date_time",
        target="Trips",
        group=("Region", "State", "Purpose"),
    ),
    "stallion": Table(
        _read_stallion,
        horizon=6,
        seasons=(12,),
        time="date",
        target="volume",
        group=("agency", "sku"),
        known=("price_regular", "discount_in_percent", *SPECIAL_DAYS),
        past=("industry_volume", "soda_volume", "avg_max_temp"),
        static=("avg_population_2017", "avg_yearly_household_income_2017"),
    ),
    "demand": Table(  # the days of the demo
        lambda folder: electricity_demand(),
        horizon=48,
        seasons=(48, 336),
        time="time",
        target="demand (MW)",
        windows=14,
    ),
    "small_monthly": Table(  # 12 products of 60 months
        _read_small_monthly,
        horizon=6,
        seasons=(12,),
        time="date",
        target="y",
        group=("item",),
        windows=2,
        rows=60,
    ),
    "small_weekly": Table(  # one series of 100 weeks
        _read_small_weekly,
        horizon=8,
        seasons=(1, 52),
        time="date",
        target="y",
        windows=3,
        rows=100,
    ),
}
