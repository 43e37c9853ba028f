"""Plots of times outside the range that matplotlib supports."""

from pathlib import Path

import numpy as np

from helpers.times import FAR, HORIZON, INT, read_times_panel, write_times
from pytorch_forecasting_mlstm.cli.plots import plot_future


def test_plot_future_of_series_far_apart(tmp_path: Path) -> None:
    for times in (FAR["hours"], (range(INT.max - 45, INT.max - 5), range(INT.min, INT.min + 40))):
        panel = read_times_panel(write_times(tmp_path / "t.csv", {"a": times[0]}))
        plot_future(panel, HORIZON, np.ones((1, HORIZON, 7)), "t", tmp_path / "t.png")
