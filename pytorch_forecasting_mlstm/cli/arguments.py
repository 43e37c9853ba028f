"""The options of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from .._messages import printable
from ..forecaster import InputError
from .versions import Versions

_MAX_EPOCHS = 100_000  # each has its own learning rate, in a list
_MAX_SEED = 2**32 - 1  # for NumPy

DESCRIPTION = """\
Forecast with mLSTMTime. Without a table: fit and test it on real electricity demand, and draw a
plot. With a table: test it on the last rows, then learn these, too, and forecast what comes after
them."""

EXAMPLE = """\
examples:
  python -m pytorch_forecasting_mlstm sales.csv --time date --target sales \\
      --group store --horizon 28 --save sales.model
  python -m pytorch_forecasting_mlstm newer.csv --model sales.model
Both write forecast.csv and forecast.png. The second trains nothing."""

#: Options that are parameters of the forecaster.
PARAMETERS = (
    *("time", "target", "group", "known", "past", "static", "timezone", "frequency", "holidays"),
    *("missing", "horizon", "history", "quantiles", "minimum", "epochs", "seed"),
)
_REQUIRED = ("time", "target", "horizon")
#: Other options that need a table or a saved model.
_OTHERS = ("decimal", "cutoffs", "future", "save")


@dataclass(frozen=True)
class Arguments:
    """The parsed command line: `parameters` holds those of `PARAMETERS` that were given."""

    parameters: dict[str, Any]
    table: Path | None
    future: Path | None
    decimal: str | None
    cutoffs: int | None
    save: Path | None
    model: Path | None
    output: Path
    quote_formulas: bool


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (try --help)")


class _Once(argparse.Action):
    """Store the value of an option, which is refused a second time."""

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        first = getattr(namespace, self.dest)
        if first is not None:
            parser.error(
                f"{option_string} is given twice, as {printable(first)} and {printable(values)}: "
                "keep one of them"
            )
        setattr(namespace, self.dest, values)


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


def _levels(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be numbers between 0 and 1, such as 0.1 0.5 0.9, not {printable(text)}"
        ) from error


def _number_or_word(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text  # checked by the forecaster


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m pytorch_forecasting_mlstm",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    files = ".csv, .tsv (also .gz), .xlsx or .parquet file"
    parser.add_argument("table", nargs="?", type=Path, help=f"{files}, one row per time and group")
    reported = "print the versions that a report of a bug needs"
    parser.add_argument("--versions", action=Versions, nargs=0, help=reported)
    group = parser.add_argument_group("columns of the table")

    def add(name: str, metavar: str, text: str, **options: Any) -> None:
        group.add_argument(name, metavar=metavar, help=text, **{"action": _Once, **options})

    several: dict[str, Any] = {"action": "append"}
    add("--time", "COLUMN", "dates, times, months, quarters, weeks or whole numbers")
    add("--target", "COLUMN", "the numbers to forecast; repeat for several columns", **several)
    add("--group", "COLUMN", "name of the series that a row belongs to; likewise", **several)
    known = "known in advance (price, promotion); likewise. The table must go on over the horizon, "
    add("--known", "COLUMN", known + "with an empty target, or --future must be given", **several)
    add("--past", "COLUMN", "known up to the present only (weather); likewise", **several)
    add("--static", "COLUMN", "constant within a series (type of a store); likewise", **several)

    group = parser.add_argument_group("times and numbers")
    add("--timezone", "ZONE", "zone of local times, such as Europe/Berlin: settles summer time")
    spacings = "such as D, B (business days), W-SUN, MS, h or 15min"
    add("--frequency", "SPACING", f"{spacings} (default: inferred)")
    days = "days that the series skip: a file with one date per line, or the code of a country or "
    add("--holidays", "FILE|CODE", days + "an exchange, such as US or NYSE")
    fills = "fill missing rows and targets with 0 or another number, previous or interpolate "
    fills += "(default: mask, which hides them from the model)"
    group.add_argument(
        "--missing", "--fill", action=_Once, type=_number_or_word, metavar="HOW", help=fills
    )
    marks = "decimal mark, . or , of numbers that leave it open, such as 1.003"
    add("--decimal", "MARK", marks, choices=[".", ","])

    group = parser.add_argument_group("forecast")
    add("--horizon", "STEPS", "steps to forecast", type=_integer(1))
    lengths = "steps the model looks back (default: the best of a few on held-out rows)"
    add("--history", "STEPS", lengths, type=_integer(1))
    levels = "separated by spaces or commas (default: 0.1 0.5 0.9)"
    add("--quantiles", "Q", levels, type=_levels, nargs="+")
    floor = "forecasts are never lower (default: 0 for amounts that are never negative)"
    add("--minimum", "NUMBER|none", floor, type=_number_or_word)
    tests = "test N forecasts of each series (default: those of the last tenth of its rows)"
    add("--cutoffs", "N", tests, type=_integer(1))
    add("--epochs", "N", "of the longest training (default: 40)", type=_integer(1, _MAX_EPOCHS))
    add("--seed", "N", "default: 0", type=_integer(0, _MAX_SEED))

    group = parser.add_argument_group("files")
    plan = f"{files} with the known columns of the steps to forecast, time and group"
    add("--future", "FILE", plan, type=Path)
    add("--save", "FILE", "save the fitted model", type=Path)
    saved = "forecast with a saved model, without training; without a table: after its own rows"
    add("--model", "FILE", saved, type=Path)
    add("--output", "FOLDER", "of the results (default: the current one)", type=Path)
    group.add_argument(
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
        An option is unknown, missing, out of range, or given twice.
    """
    values = vars(_parser().parse_args(argv))
    values.pop("versions")
    given = {name: value for name in PARAMETERS if (value := values.pop(name)) is not None}
    if "quantiles" in given:
        given["quantiles"] = [level for part in given["quantiles"] for level in part]
    if given.get("minimum") == "none":
        given["minimum"] = None
    values["output"] = values["output"] or Path()
    others = [name for name in _OTHERS if values[name] is not None]
    if values["table"] is None and values["model"] is None:
        extra = [f"--{name}" for name in (*given, *others) if name not in ("epochs", "seed")]
        extra += ["--quote-formulas"] if values["quote_formulas"] else []
        if extra:
            raise InputError(f"{', '.join(extra)} needs a table: name the file first (try --help)")
    elif values["model"] is None:
        missing = [f"--{name}" for name in _REQUIRED if name not in given]
        if missing:
            raise InputError(
                f"{printable(values['table'].name)} needs {' and '.join(missing)}, for example "
                "--time date --target sales --horizon 28"
            )
    elif extra := [f"--{name}" for name in ("cutoffs", "save") if name in others]:
        raise InputError(
            f"{' and '.join(extra)} contradicts --model, which trains nothing: leave it out"
        )
    return Arguments(parameters=given, **values)
