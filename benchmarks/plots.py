"""Draw the plots of docs/benchmarks.md from the tables in benchmarks/results.

    make plots
    python benchmarks/plots.py

The plots show all rows of the tables: several seeds as their mean and range, and models that were
evaluated at several horizons as lines. Each file contains the fingerprint of its table. A test
compares the two, and fails if a plot is older than its table.
"""

import argparse
import hashlib
import itertools
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
IMAGES = ROOT / "docs/images"

OURS = "mLSTMTime, defaults"
PART = "- "  # prefix of the rows that change one part of OURS
#: Alharthi and Mahmood, arXiv:2407.10240: MSE and MAE on ETTh1.
PUBLISHED = {
    96: (0.368, 0.395),
    192: (0.401, 0.416),
    336: (0.422, 0.437),
    720: (0.441, 0.465),
}
#: Okabe and Ito's colors, which are safe for color blindness; the markers differ in grayscale, too.
STYLES = [
    {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    {"color": "#E69F00", "marker": "s", "linestyle": "--"},
    {"color": "#009E73", "marker": "^", "linestyle": "-."},
    {"color": "#CC79A7", "marker": "D", "linestyle": ":"},
    {"color": "#D55E00", "marker": "v", "linestyle": "-"},
    {"color": "#56B4E9", "marker": "P", "linestyle": "--"},
    {"color": "#666666", "marker": "X", "linestyle": "-."},
]


def plot_horizons(table: pd.DataFrame) -> Figure:
    """Plot test errors against the horizon, for all models evaluated at several horizons."""
    table = table[table["data"] == "ETTh1"].dropna(subset=["test_mse"])
    several = [name for name, rows in table.groupby("model") if rows["horizon"].nunique() > 1]
    names = sorted(several, key=lambda name: (name != OURS, name))
    horizons = sorted({*PUBLISHED, *table.loc[table["model"].isin(names), "horizon"]})
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for panel, (axes, column) in enumerate(zip(panels, ("mse", "mae"), strict=True)):
        published = [PUBLISHED.get(horizon, (None, None))[panel] for horizon in horizons]
        axes.plot(
            range(len(horizons)),
            pd.Series(published, dtype=float),
            color="black",
            linestyle=(0, (1, 1)),
            marker="*",
            markersize=8,
            zorder=3,
            label="xLSTMTime, published",
        )
        for number, (name, style) in enumerate(zip(names, itertools.cycle(STYLES))):
            rows = table[table["model"] == name].groupby("horizon")[f"test_{column}"]
            # shifted sideways, since errors may be equal
            at = [horizons.index(horizon) + 0.06 * number for horizon in rows.groups]
            draw_range(axes, at, rows, name, style)
        axes.set_xticks(range(len(horizons)), [str(horizon) for horizon in horizons])
        axes.set_xlabel("horizon (hours)")
        axes.set_ylabel(f"{column.upper()} (standardized)")
    panels[0].legend(frameon=False, fontsize=9)
    return figure


def plot_parts(table: pd.DataFrame) -> Figure:
    """Plot how a change of each part changes the MSE, at the horizon with most such rows."""
    table = table[table["data"] == "ETTh1"].dropna(subset=["test_mse"])
    parts = table[table["model"].str.startswith(PART)]
    horizon = parts.groupby("horizon")["model"].nunique().idxmax()
    ours = table[(table["model"] == OURS) & (table["horizon"] == horizon)]
    defaults = ours.groupby("seed")["test_mse"].mean()
    changed = parts[parts["horizon"] == horizon]
    # compare with the same seed of the defaults, since some parts have only one seed
    change = 100 * (changed["test_mse"] / changed["seed"].map(defaults) - 1)
    by_name = change.groupby(changed["model"].str.removeprefix(PART))
    names = by_name.mean().sort_values(ascending=False).index

    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.34 * len(names)), layout="constrained")
    spread = 100 * (defaults / defaults.mean() - 1)
    axes.axvspan(spread.min(), spread.max(), color="#A9D3EC", label="defaults, range over seeds")
    axes.axvline(0, color="#0072B2", linewidth=1)
    for row, name in enumerate(names):
        values = by_name.get_group(name)
        axes.plot([values.min(), values.max()], [row, row], color="#666666", linewidth=2)
        axes.plot(values, [row] * len(values), "o", color="#D55E00", markersize=6)
    axes.set_yticks(range(len(names)), names)
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.set_xlabel(
        f"change in MSE at horizon {horizon} (% of the same seed of the defaults; lower is better)"
    )
    axes.legend(frameon=False, loc="center right", fontsize=9)
    return figure


def plot_recall(table: pd.DataFrame) -> Figure:
    """Plot the recall error against the number of pairs, with one panel per distance."""
    distances = sorted(table["distance"].unique())
    figure, panels = pyplot.subplots(
        1,
        len(distances),
        figsize=(1.5 + 4 * len(distances), 3.6),
        layout="constrained",
        sharey=True,
        squeeze=False,
    )
    for axes, distance in zip(panels[0], distances, strict=True):
        rows = table[table["distance"] == distance]
        axes.axhline(1, color="#999999", linestyle=":", label="no recall")
        names = rows["layer"].unique()
        for number, (name, style) in enumerate(zip(names, itertools.cycle(STYLES))):
            by_pairs = rows[rows["layer"] == name].groupby("pairs")["error"]
            at = [pairs * 1.04**number for pairs in by_pairs.groups]
            draw_range(axes, at, by_pairs, name, style)
        pairs = sorted(rows["pairs"].unique())
        axes.set_xscale("log", base=2)
        axes.set_xticks(pairs, [str(number) for number in pairs])
        axes.set_ylim(0, 1.1 * max(1, table["error"].max()))
        axes.set(xlabel="pairs stored", title=f"{distance} steps before the query")
    panels[0][0].set_ylabel("relative squared error")
    panels[0][-1].legend(frameon=False, fontsize=9)
    return figure


def draw_range(axes: Axes, at: list[float], grouped: Any, name: str, style: dict[str, str]) -> None:
    """Plot means as a line, and ranges as vertical bars."""
    mean = grouped.mean()
    axes.plot(at, mean, **style, linewidth=1.8, label=name.removeprefix(PART))
    axes.vlines(at, grouped.min(), grouped.max(), color=style["color"], linewidth=1.2)


#: For each file, its table and the function that plots it.
PLOTS = {
    "etth1-horizons.svg": ("etth1.csv", plot_horizons),
    "etth1-parts.svg": ("etth1.csv", plot_parts),
    "recall.svg": ("recall.csv", plot_recall),
}


def fingerprint(table: Path) -> str:
    """Return the name of a table and a hash of its contents."""
    return f"{table.name} {hashlib.sha256(table.read_bytes()).hexdigest()[:16]}"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    look = {
        "axes.spines.right": False,
        "axes.spines.top": False,
        "svg.fonttype": "path",
        "svg.hashsalt": "pytorch_forecasting_mlstm",  # the same table gives the same file
    }
    with pyplot.rc_context(look):
        for image, (table, plot) in PLOTS.items():
            path = RESULTS / table
            figure = plot(pd.read_csv(path))
            metadata = {"Date": None, "Description": fingerprint(path)}
            figure.savefig(IMAGES / image, metadata=metadata)
            pyplot.close(figure)
            print(IMAGES / image)


if __name__ == "__main__":
    main()
