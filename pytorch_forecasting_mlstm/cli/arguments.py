"""The options of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from .._messages import printable
from ..forecaster import InputError

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
Both write forecast.csv and forecast.png; the second trains nothing."""

#: Options that describe a forecaster, and are its parameters.
PARAMETERS = (
    "time",
    "target",
    "group",
    "known",
    "past",
    "static",
    "horizon",
    "history",
    "quantiles",
    "missing",
    "timezone",
    "frequency",
    "holidays",
    "minimum",
    "epochs",
    "seed",
)
_REQUIRED = ("time", "target", "horizon")


@dataclass(frozen=True)
class Arguments:
    """The parsed command line.

    Attributes
    ----------
    table, future : Path or None
        Files to read. Without a table: the demo, unless there is a model.
    parameters : dict
        Those of `PARAMETERS` that were given.
    decimal : str or None
        The decimal mark of numbers in text.
    cutoffs : int or None
        Cutoffs of the test.
    save, model : Path or None
        Files to save the forecaster in, and to load it from.
    output : Path
        Folder of the results.
    quote_formulas : bool
        Whether to quote text that a spreadsheet would run.
    """

    table: Path | None
    future: Path | None
    parameters: dict[str, Any]
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
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if getattr(namespace, self.dest) is not None:
            first = getattr(namespace, self.dest)
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


def _missing(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text  # checked by the forecaster


def _minimum(text: str) -> str | float | None:
    if text in ("auto", "none"):
        return text
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be a number, none or auto, not {printable(text)}"
        ) from error


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m pytorch_forecasting_mlstm",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "table",
        nargs="?",
        type=Path,
        help=".csv, .tsv (also .gz), .xlsx or .parquet file, one row per time and group",
    )
    _add_columns(parser.add_argument_group("columns of the table (repeat for several)"))
    _add_times(parser.add_argument_group("times and numbers"))
    _add_model(parser.add_argument_group("forecast"))
    _add_files(parser.add_argument_group("files"))
    return parser


def _add_columns(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--time",
        action=_Once,
        metavar="COLUMN",
        help="dates, times, months, quarters, weeks or whole numbers (one column)",
    )
    for name, text in (
        ("target", "the numbers to forecast"),
        ("group", "name of the series that a row belongs to"),
        (
            "known",
            "known in advance (price, promotion): the table must go on over the horizon, with the "
            "target left empty, or --future must be given",
        ),
        ("past", "known up to the present only (weather)"),
        ("static", "constant within a series (type of a store)"),
    ):
        group.add_argument(f"--{name}", action="append", metavar="COLUMN", help=text)


def _add_times(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--timezone",
        action=_Once,
        metavar="ZONE",
        help="zone of local times, such as Europe/Berlin: settles hours that summer time repeats "
        "or skips",
    )
    add(
        "--frequency",
        action=_Once,
        metavar="SPACING",
        help="D, B (business days), W-SUN, MS, h, 15min, ... (default: inferred)",
    )
    add(
        "--holidays",
        action=_Once,
        metavar="FILE|CODE",
        help="days that the series skip: a file with one date per line, or the code of a country "
        "or an exchange, such as US or NYSE",
    )
    add(
        "--missing",
        "--fill",
        action=_Once,
        type=_missing,
        metavar="HOW",
        help="what to do where a row or a target is missing: mask (hide it from the model), 0 or "
        "another number, previous, interpolate (default: mask)",
    )
    add(
        "--decimal",
        action=_Once,
        choices=[".", ","],
        metavar="MARK",
        help="decimal mark of the numbers, . or , where the file leaves it open, as with 1.003",
    )


def _add_model(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--horizon", action=_Once, type=_integer(1), metavar="STEPS", help="steps to forecast")
    add(
        "--history",
        action=_Once,
        type=_integer(1),
        metavar="STEPS",
        help="steps the model looks back (default: the best of a few, tried on held-out rows)",
    )
    add(
        "--quantiles",
        action=_Once,
        type=_levels,
        nargs="+",
        metavar="Q",
        help="between 0 and 1, separated by spaces or commas (default: 0.1 0.5 0.9)",
    )
    add(
        "--minimum",
        action=_Once,
        type=_minimum,
        metavar="NUMBER|none",
        help="forecasts are never lower (default: 0 for amounts that are never negative)",
    )
    add(
        "--cutoffs",
        action=_Once,
        type=_integer(1),
        metavar="N",
        help="test N forecasts of every series (default: those of the last tenth of the rows)",
    )
    add("--epochs", action=_Once, type=_integer(1, _MAX_EPOCHS), help="at most (default: 40)")
    add("--seed", action=_Once, type=_integer(0, _MAX_SEED), help="default: 0")


def _add_files(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--future",
        action=_Once,
        type=Path,
        metavar="FILE",
        help="the known columns of the steps to forecast, with time and group",
    )
    add("--save", action=_Once, type=Path, metavar="FILE", help="save the fitted model")
    add(
        "--model",
        action=_Once,
        type=Path,
        metavar="FILE",
        help="forecast with a saved model, without training; without a table: after its own rows",
    )
    add(
        "--output",
        action=_Once,
        type=Path,
        metavar="FOLDER",
        help="for the results (default: the current one)",
    )
    add(
        "--quote-formulas",
        action="store_true",
        help="for spreadsheets: put an apostrophe before text in forecast.csv that they would run "
        "as a formula",
    )


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
    if values["quantiles"] is not None:
        values["quantiles"] = [level for part in values["quantiles"] for level in part]
    output = values.pop("output")
    parameters = {name: value for name in PARAMETERS if (value := values.pop(name)) is not None}
    arguments = Arguments(parameters=parameters, output=output or Path(), **values)
    if arguments.table is None and arguments.model is None:
        _check_demo(arguments)
    elif arguments.model is None:
        missing = [f"--{name}" for name in _REQUIRED if name not in parameters]
        if missing:
            raise InputError(
                f"{printable(Path(str(arguments.table)).name)} needs {' and '.join(missing)}, for "
                "example --time date --target sales --horizon 28"
            )
    elif extra := [f"--{name}" for name in ("cutoffs", "save") if values[name] is not None]:
        raise InputError(
            f"{' and '.join(extra)} contradicts --model, which trains nothing: leave it out"
        )
    # "none" is not the same as an option that is not given.
    if parameters.get("minimum") == "none":
        parameters["minimum"] = None
    return arguments


def _check_demo(arguments: Arguments) -> None:
    """Raise an InputError for options that the demo does not have."""
    extra = [f"--{name}" for name in arguments.parameters if name not in ("epochs", "seed")]
    for name in ("decimal", "cutoffs", "future", "save"):
        extra += [f"--{name}"] if getattr(arguments, name) is not None else []
    extra += ["--quote-formulas"] if arguments.quote_formulas else []
    if extra:
        raise InputError(f"{', '.join(extra)} needs a table: name the file first (try --help)")
