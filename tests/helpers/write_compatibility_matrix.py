"""Write docs/compatibility.md from a run of all combinations."""

import logging
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import matplotlib
import torch

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
    run_quietly,
)

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"

_HEAD = """\
# Compatibility

This page shows which losses work with which normalizers, datasets and targets. `make compatibility`
generates it, and `make test-all` compares it with a run. For every combination,
`mLSTMTime.from_dataset` creates a model, which is fitted for one step and tested. It then predicts
in every mode with every `return_*`, is plotted, saved and loaded again.

- ✓: forecasts are finite and in the scale of the data, all weights of the model have gradients, and
  the loaded model gives the same forecasts.
- A number: `mLSTMTime.from_dataset` raises the error with that number in the [list below](#errors),
  which names a fix.
- n/a: `TimeSeriesDataSet` itself cannot be built this way.

{counts}.
"""
_TABLES: tuple[tuple[str, Iterable[str], Callable[..., Iterable[Cell]]], ...] = (
    ("Losses and normalizers", NORMALIZERS, by_normalizer),
    ("Losses and datasets", SETTINGS, by_setting),
    ("Losses and targets", TARGETS, by_targets),
)
_KINDS = {"✓": "work", "n/a": "are impossible in pytorch-forecasting"}
#: The text that identifies each kind of error, in the order of their numbers.
_REASONS = (
    r"is a loss for a",
    r"needs a target_normalizer with transformation",
    r"needs a target_normalizer with center",
    r"'inverse_torch'",
    r"cannot weight steps",
    r"cannot leave out the padding",
    r"compares with the change",
    r"cannot be trained on",
)


def mark_of(result: str) -> str:
    """Return the mark of a result in the table."""
    if result == PASS:
        return "✓"
    # pytorch-forecasting itself raises it for a single target
    if result.startswith(("TimeSeriesDataSet: ", "mLSTMTime: an EncoderNormalizer needs")):
        return "n/a"
    return str(next(n for n, reason in enumerate(_REASONS, 1) if re.search(reason, result)))


def row_of(loss: str, results: list[str]) -> tuple[str, list[str]]:
    """Return a row of a table and its marks."""
    marks = [mark_of(result) for result in results]
    return f"| `{loss}` | " + " | ".join(marks) + " |", marks


@cache
def documented() -> dict[tuple[str, str], str]:
    """Read the mark of every loss and column from the page."""
    marks, columns = {}, []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        first, *rest = [part.strip() for part in line.strip("|").split("|")]
        if first == "loss":
            columns = rest
        elif first.startswith("`"):
            marks.update({(first.strip("`"), c): m for c, m in zip(columns, rest, strict=True)})
    return marks


def run_loss(loss: str) -> list[list[str]]:
    """Return the results of a loss for its row in each table."""
    matplotlib.use("Agg")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return [[run_quietly(cell) for cell in cells(loss)] for _, _, cells in _TABLES]


def main() -> None:
    """Run all combinations, one loss per process, and write the page."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        rows = dict(zip(LOSSES, pool.map(run_loss, LOSSES), strict=True))
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    tables = []
    for number, (title, columns, _) in enumerate(_TABLES):
        lines = [f"## {title}", "", "| loss | " + " | ".join(columns) + " |"]
        lines.append("| --- " * (len(list(columns)) + 1) + "|")
        for loss, results in rows.items():
            row, marks = row_of(loss, results[number])
            lines.append(row)
            for mark, result in zip(marks, results[number], strict=True):
                counts[_KINDS.get(mark, "raise an error")] += 1
                examples.setdefault(mark, result)
        tables.append("\n".join(lines))
    reasons = range(1, len(_REASONS) + 1)
    missing = [_REASONS[n - 1] for n in reasons if str(n) not in examples]
    assert not missing, f"no cell is refused for these reasons, remove them: {missing}"
    errors = [f"{n}. {_ADDRESS.sub('', examples[str(n)])}" for n in reasons]
    errors.append(f"\nn/a: {examples['n/a'].splitlines()[0]}")
    summary = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    head = _HEAD.format(counts=f"Of {counts.total()} combinations, {summary}")
    errors_part = "## Errors\n\nOne example of each kind:\n\n" + "\n".join(errors)
    PAGE.write_text("\n".join([head, *(t + "\n" for t in tables), errors_part, ""]), "utf-8")


if __name__ == "__main__":
    main()
