"""Every combination of loss, target, normalizer and dataset works or is rejected at once."""

from itertools import islice
from pathlib import Path

import pytest

from helpers.compatibility_matrix import (
    LOSSES,
    NORMALIZERS,
    PASS,
    SETTINGS,
    TARGETS,
    Cell,
    by_normalizer,
    by_setting,
    by_targets,
    product_of,
    run_quietly,
)
from helpers.write_compatibility_matrix import PAGE, documented, mark_of, row_of

#: Losses that need a package beyond this project's dependencies.
OPTIONAL = {"MQF2DistributionLoss(horizon)": "cpflows"}


def _some_cells() -> list[Cell]:
    """Pick cells that cover every loss, normalizer, dataset and set of targets."""
    losses = [loss for loss in LOSSES if loss not in OPTIONAL]
    normalizers, settings, targets = list(NORMALIZERS), list(SETTINGS), list(TARGETS)
    # the strides have no common factor with the number of losses, which spreads the pairs
    return [
        *(Cell(losses[(3 * n) % len(losses)], name) for n, name in enumerate(normalizers)),
        *(Cell(losses[(7 * n + 1) % len(losses)], setting=s) for n, s in enumerate(settings)),
        *(Cell(losses[(11 * n + 2) % len(losses)], targets=t) for n, t in enumerate(targets)),
    ]


def _name(cell: Cell) -> str:
    parts = (cell.normalizer, cell.targets, cell.setting)
    return ", ".join([cell.loss, *(part for part in parts if part not in (None, "one"))])


def _columns(cell: Cell) -> list[str]:
    """Return the columns of the page for the parts of a cell."""
    parts = [part for part in (cell.normalizer, cell.setting) if part is not None]
    return [cell.targets, *parts]


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(cell, marks=pytest.mark.slow if number % 2 else [])
        for number, cell in enumerate(_some_cells())
    ],
    ids=_name,
)
def test_training_step_works_or_is_rejected_as_documented(cell: Cell) -> None:
    marks = {documented()[cell.loss, column] for column in _columns(cell)}
    expected = marks - {mark_of(PASS)} or marks
    assert {mark_of(run_quietly(cell, thoroughly=False))} == expected


@pytest.mark.parametrize("loss", ["QuantileLoss([0.9, 0.2])", "PoissonLoss()"])
def test_cell_fits_tests_predicts_plots_and_reloads(loss: str) -> None:
    assert run_quietly(Cell(loss)) == PASS


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_row_of_the_table_matches_the_documentation(loss: str) -> None:
    """Make a step in every cell of the rows of a loss; fit, test, plot and reload a quarter."""
    if loss in OPTIONAL:
        pytest.importorskip(OPTIONAL[loss])
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    number = list(LOSSES).index(loss)
    for cells in (by_normalizer, by_setting, by_targets):
        results = [
            run_quietly(cell, thoroughly=(number + column) % 4 == 0)
            for column, cell in enumerate(cells(loss))
        ]
        row, _ = row_of(loss, results)
        assert row in lines, f"not in {Path(PAGE).name}, see its head: {row}"


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_parts_that_work_alone_work_together(loss: str) -> None:
    """All other products of normalizers or targets and datasets are rejected."""
    if loss in OPTIONAL:
        pytest.importorskip(OPTIONAL[loss])
    works, upstream, padding = mark_of(PASS), "n/a", "6"
    # every product with an eighth of the losses, every loss with an eighth of the products
    for cell in islice(product_of(loss), list(LOSSES).index(loss) % 8, None, 8):
        marks = {documented()[loss, column] for column in _columns(cell)}
        mark = mark_of(run_quietly(cell, thoroughly=False))
        # a transformation may be the reason that a loss cannot leave out padding
        expected = marks | {upstream, padding} if "horizons" in cell.setting else marks | {upstream}
        assert mark in expected, f"{mark} for {_name(cell)}, {marks} for its parts"
        assert mark != works or marks == {works}, f"{_name(cell)} works, but not all its parts"
