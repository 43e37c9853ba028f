"""A fit that is tested on the last rows of a table, without a further training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..errors import InputError
from ..panel.panel import Panel
from ..training.fitted import Fitted, Interrupted
from ..training.fitting import OnProgress, Settings, fit_panel, refit_panel
from ..training.splits import min_rows
from .backtest_result import BacktestResult
from .backtesting import backtest_panel, choose_cutoffs

_TEST_SHARE = 0.1  # of the typical series


def fit_and_test(
    panel: Panel,
    clean: Callable[[Panel], Panel],
    settings: Settings,
    positions: Sequence[int],
    on_progress: OnProgress | None = None,
) -> tuple[Fitted, BacktestResult]:
    """Choose on the rows before the first cutoff, test from the cutoffs, and fit to all rows.

    This takes the trainings of `fit_panel`: those that choose, and those on all rows. A single
    model is tested, which has not learned the rows that it was chosen on, so that its errors are,
    if anything, too high.

    Parameters
    ----------
    panel, clean
        As in `backtest_panel`.
    settings, on_progress
        As in `fit_panel`.
    positions : sequence of int
        First forecast steps, oldest first, as `choose_test_cutoffs` returns them.

    Raises
    ------
    Interrupted
        After Ctrl-C, if there is a model already.
    """
    past = clean(panel.until(positions[0]))
    chosen = fit_panel(past, replace(settings, learn_all=False), on_progress)
    report = backtest_panel(
        panel,
        clean,
        positions,
        settings.horizon,
        tuple(settings.quantiles),
        lambda _: chosen,
        refit=False,
    )
    try:
        return refit_panel(clean(panel), settings, chosen, on_progress), report
    except KeyboardInterrupt as interruption:
        raise Interrupted(chosen, past.groups) from interruption


def choose_test_cutoffs(panel: Panel, horizon: int, cutoffs: int | str) -> list[int]:
    """Return the positions of the first forecast steps of the test, one horizon apart.

    Parameters
    ----------
    panel : Panel
        The series.
    horizon : int
        Steps to forecast.
    cutoffs : int or "auto"
        Their number. "auto" covers a tenth of the typical series, and leaves enough rows before
        them to choose on; there are none if the series are too short.

    Raises
    ------
    InputError
        If the table is too short for so many.

    Warns
    -----
    UserWarning
        If "auto" finds no room for a test.
    """
    if cutoffs != "auto":
        return choose_cutoffs(panel, horizon, int(cutoffs))
    count = max(1, round(_TEST_SHARE * float(np.median(panel.lengths)) / horizon))
    needed = min_rows(horizon) + horizon
    while count:
        try:
            positions = choose_cutoffs(panel, horizon, count)
        except InputError:
            positions = []
        if positions and panel.until(positions[0]).lengths.max(initial=0) >= needed:
            return positions
        count //= 2
    warnings.warn(
        f"the longest series has {int(panel.lengths.max())} rows, too few to keep some for a test: "
        f"with {needed + horizon} or more, the errors of the forecast would be measured",
        UserWarning,
        stacklevel=3,
    )
    return []
