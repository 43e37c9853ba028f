"""The plots of docs/benchmarks.md are those of the tables beside them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/plots.py"


@pytest.fixture(scope="module")
def plots() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plots", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_plots_are_as_new_as_their_tables(plots: ModuleType) -> None:
    for image, (table, _) in plots.PLOTS.items():
        drawn = (plots.IMAGES / image).read_text(encoding="utf-8")
        assert plots.fingerprint(plots.RESULTS / table) in drawn, f"{image}: run make plots"


def test_plots_average_seeds_and_skip_other_rows(plots: ModuleType) -> None:
    table = pd.read_csv(plots.RESULTS / "etth1.csv")
    other = table.assign(seed=7, test_mse=table["test_mse"] + 0.01)
    weather = table.assign(data="weather", test_mse=9.0)
    untested = table.assign(model="untested", test_mse=None)
    more = pd.concat([table, other, weather, untested], ignore_index=True)
    (line,) = (
        line for line in plots.plot_horizons(more).axes[0].lines if line.get_label() == plots.OURS
    )
    means = table[table["model"] == plots.OURS].groupby("horizon")["test_mse"].mean() + 0.005
    assert line.get_ydata() == pytest.approx(means.to_numpy())
    assert len(plots.plot_parts(more).axes[0].get_yticks()) == len(
        plots.plot_parts(table).axes[0].get_yticks()
    )

    recall = pd.read_csv(plots.RESULTS / "recall.csv")
    further = pd.concat([recall, recall.assign(distance=4096), recall.assign(layer="another")])
    assert len(plots.plot_recall(further).axes) == recall["distance"].nunique() + 1
    plots.pyplot.close("all")
