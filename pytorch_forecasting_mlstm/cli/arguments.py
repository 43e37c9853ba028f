"""What can be said on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ..forecaster.errors import UserError, quoted, shown

_MOST_EPOCHS = 100_000  # each has a learning rate of its own
_LARGEST_SEED = 2**32 - 1  # of NumPy

DESCRIPTION = """\
Forecast with mLSTMTime. Without a table: fit and test it on real electricity demand, and draw a
picture. With a table: measure it on the table's last rows, then forecast what comes after them."""

EXAMPLE = """\
example:
  python -m pytorch_forecasting_mlstm sales.csv --time date --target sales \\
      --group store --horizon 28
writes forecast.csv and forecast.png"""


@dataclass(frozen=True)
class Arguments:
    """The parsed command line; `table` is None for the demo, and then so are its columns."""

    table: Path | None
    time: str
    target: str
    group: tuple[str, ...]
    known: tuple[str, ...]
    horizon: int
    history: int | None
    epochs: int
    seed: int
    output: Path
    quote_formulas: bool


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (try --help)")


def _at_least(least: int, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least {least}, not {shown(text)}"
        )
    return number


def _positive(text: str) -> int:
    return _at_least(1, text)


def _at_most(most: int, number: int) -> int:
    if number > most:
        raise argparse.ArgumentTypeError(f"must be at most {most}, not {shown(number)}")
    return number


def _epochs(text: str) -> int:
    return _at_most(_MOST_EPOCHS, _positive(text))


def _seed(text: str) -> int:
    return _at_most(_LARGEST_SEED, _at_least(0, text))


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m pytorch_forecasting_mlstm",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("table", nargs="?", type=Path, help=".csv or .parquet file, one row per time and group")
    columns = parser.add_argument_group("columns of the table")
    add = columns.add_argument
    add("--time", metavar="COLUMN", help="dates, times or whole numbers, evenly spaced")
    add("--target", metavar="COLUMN", help="the numbers to forecast")
    add(
        "--group",
        metavar="COLUMN",
        action="append",
        default=[],
        help="names the series a row belongs to; repeat for several columns",
    )
    add(
        "--known",
        metavar="COLUMN",
        action="append",
        default=[],
        help="known in advance (price, promotion); repeat for several. The table then ends, in "
        "each group, with HORIZON rows whose target is empty",
    )
    forecast = parser.add_argument_group("forecast")
    add = forecast.add_argument
    add("--horizon", metavar="STEPS", type=_positive, help="steps to forecast")
    add(
        "--history",
        metavar="STEPS",
        type=_positive,
        help="steps the model looks back (default: two seasons or three horizons, as they fit)",
    )
    add("--epochs", type=_epochs, default=40, help="at most so many (default: 40)")
    add("--seed", type=_seed, default=0, help="of all random numbers (default: 0)")
    add("--output", metavar="FOLDER", type=Path, default=Path(), help="default: here")
    add(
        "--quote-formulas",
        action="store_true",
        help="for spreadsheets: put an apostrophe before text in forecast.csv that they would run "
        "as a formula",
    )
    return parser


def parse(argv: Sequence[str] | None = None) -> Arguments:
    """Parse and cross-check the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Words after the program's name; default ``sys.argv[1:]``.

    Raises
    ------
    UserError
        An option is unknown, missing or out of range.
    """
    given = vars(_parser().parse_args(argv))
    needed = {f"--{name}": given[name] for name in ("time", "target", "horizon")}
    if given["table"] is None:
        extra = [name for name, value in needed.items() if value is not None]
        extra += [f"--{name}" for name in ("group", "known", "history") if given[name]]
        extra += ["--quote-formulas"] if given["quote_formulas"] else []
        if extra:
            raise UserError(f"{', '.join(extra)} needs a table: name the file first (try --help)")
        given.update(time="", target="", horizon=0)
    else:
        missing = [name for name, value in needed.items() if value is None]
        if missing:
            raise UserError(
                f"{shown(given['table'].name)} needs {' and '.join(missing)}, for example "
                "--time date --target sales --horizon 28"
            )
    columns = [given["time"], given["target"], *given["group"], *given["known"]]
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise UserError(f"column {quoted(twice[0])} is named twice: give each column one role")
    given["group"] = tuple(given["group"])
    given["known"] = tuple(given["known"])
    return Arguments(**given)
