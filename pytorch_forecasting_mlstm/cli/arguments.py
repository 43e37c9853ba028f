"""The options of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from .._messages import printable
from ..forecaster.errors import InputError, quoted

_MAX_EPOCHS = 100_000  # each has its own learning rate, in a list
_MAX_SEED = 2**32 - 1  # for NumPy

DESCRIPTION = """\
Forecast with mLSTMTime. Without a table: fit and test it on real electricity demand, and draw a
plot. With a table: evaluate it on the last rows, then forecast what comes after them."""

EXAMPLE = """\
example:
  python -m pytorch_forecasting_mlstm sales.csv --time date --target sales \\
      --group store --horizon 28
writes forecast.csv and forecast.png"""


@dataclass(frozen=True)
class Arguments:
    """The parsed command line. For the demo, `table` is None and the columns are empty."""

    table: Path | None
    time: str
    target: str
    group: list[str]
    known: list[str]
    horizon: int
    history: int | None
    epochs: int
    seed: int
    output: Path
    quote_formulas: bool


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (try --help)")


def _integer(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum:
            raise argparse.ArgumentTypeError(
                f"must be a whole number of at least {minimum}, not {printable(text)}"
            )
        if maximum is not None and number > maximum:
            raise argparse.ArgumentTypeError(f"must be at most {maximum}, not {printable(number)}")
        return number

    return parse


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m pytorch_forecasting_mlstm",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "table", nargs="?", type=Path, help=".csv or .parquet file, one row per time and group"
    )
    columns = parser.add_argument_group("columns of the table")
    add = columns.add_argument
    add("--time", metavar="COLUMN", help="dates, times or whole numbers, evenly spaced")
    add("--target", metavar="COLUMN", help="the numbers to forecast")
    add(
        "--group",
        metavar="COLUMN",
        action="append",
        default=[],
        help="name of the series that a row belongs to; repeat for several columns",
    )
    add(
        "--known",
        metavar="COLUMN",
        action="append",
        default=[],
        help="known in advance (price, promotion); repeat for several. In each group, the table "
        "must then end with HORIZON rows whose target is empty",
    )
    forecast = parser.add_argument_group("forecast")
    add = forecast.add_argument
    add("--horizon", metavar="STEPS", type=_integer(1), help="steps to forecast")
    add(
        "--history",
        metavar="STEPS",
        type=_integer(1),
        help="steps the model looks back (default: two seasons or three horizons, if they fit)",
    )
    add("--epochs", type=_integer(1, _MAX_EPOCHS), default=40, help="at most (default: 40)")
    add("--seed", type=_integer(0, _MAX_SEED), default=0, help="default: 0")
    add("--output", metavar="FOLDER", type=Path, default=Path(), help="default: the current one")
    add(
        "--quote-formulas",
        action="store_true",
        help="for spreadsheets: put an apostrophe before text in forecast.csv that they would run "
        "as a formula",
    )
    return parser


def parse_arguments(argv: Sequence[str] | None = None) -> Arguments:
    """Parse and cross-check the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Words after the program's name; default ``sys.argv[1:]``.

    Raises
    ------
    InputError
        An option is unknown, missing or out of range.
    """
    values = vars(_parser().parse_args(argv))
    required = {f"--{name}": values[name] for name in ("time", "target", "horizon")}
    if values["table"] is None:
        extra = [name for name, value in required.items() if value is not None]
        extra += [f"--{name}" for name in ("group", "known", "history") if values[name]]
        extra += ["--quote-formulas"] if values["quote_formulas"] else []
        if extra:
            raise InputError(f"{', '.join(extra)} needs a table: name the file first (try --help)")
        values.update(time="", target="", horizon=0)
    else:
        missing = [name for name, value in required.items() if value is None]
        if missing:
            raise InputError(
                f"{printable(values['table'].name)} needs {' and '.join(missing)}, for example "
                "--time date --target sales --horizon 28"
            )
    columns = [values["time"], values["target"], *values["group"], *values["known"]]
    repeated = sorted({name for name in columns if name and columns.count(name) > 1})
    if repeated:
        raise InputError(f"column {quoted(repeated[0])} is named twice: give each column one role")
    return Arguments(**values)
