"""Forecast a user's table: test the forecast on its last rows, fit, and forecast beyond them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .._messages import printable
from ..forecaster import Forecaster, InputError
from .arguments import Arguments
from .console import require_packages
from .output import replace_files, writable_folder, write_forecast
from .read_table import read_holidays, read_table

_COLUMNS = ("target", "group", "known", "past", "static")


def run_forecast(arguments: Arguments) -> None:
    """Forecast a table: check, test, fit, write CSV and plot; or use a saved model.

    Raises
    ------
    InputError
        If a file, an option or the folder cannot be used.
    """
    require_packages("matplotlib")
    folder = writable_folder(arguments.output)
    _check_outputs(_outputs(folder, arguments), arguments)
    given = dict(arguments.parameters)
    if "holidays" in given:
        given["holidays"] = read_holidays(given["holidays"])
    if arguments.model is not None:
        forecaster = Forecaster.load(arguments.model)
        horizon = given.pop("horizon", None)
        _check_same(given, forecaster)
        table = None if arguments.table is None else _read(arguments.table, forecaster, arguments)
        print(f"Forecasting with {printable(arguments.model)}, without training", flush=True)
        forecast = forecaster.predict(table, _read_future(forecaster, arguments), horizon)
        _write(forecaster, forecast, table, folder, arguments)
        return
    assert arguments.table is not None
    if arguments.save is not None:
        writable_folder(arguments.save.absolute().parent, option="save")
    forecaster = Forecaster(**given, verbose=sys.stderr.isatty())
    table = _read(arguments.table, forecaster, arguments)
    future = _read_future(forecaster, arguments)
    forecaster.check(table, future)
    print(f"{printable(arguments.table.name)}: {len(table):,} rows")
    print("Choosing without the last rows, testing on them, then training on all", flush=True)
    forecaster.fit(table, cutoffs=arguments.cutoffs or "auto")
    print(f"History: {forecaster.history_} steps; epochs: {forecaster.epochs_}")
    if forecaster.backtest_ is not None:
        print(f"\n{forecaster.backtest_.summary()}\n")
    _write(forecaster, forecaster.predict(future=future), None, folder, arguments)


def _read(path: Path, forecaster: Forecaster, arguments: Arguments) -> pd.DataFrame:
    """Read the columns of the history."""
    columns = {name: _as_list(getattr(forecaster, name)) for name in _COLUMNS}
    return read_table(
        path,
        text=[*columns["group"], forecaster.time],
        numbers=columns["target"],
        others=[*columns["known"], *columns["past"], *columns["static"]],
        decimal=arguments.decimal,
    )


def _read_future(forecaster: Forecaster, arguments: Arguments) -> pd.DataFrame | None:
    """Read what is known of the steps to forecast."""
    if arguments.future is None:
        return None
    known = _as_list(forecaster.known)
    if not known:
        raise InputError("--future has no effect without known columns: name them with --known")
    text = [*_as_list(forecaster.group), forecaster.time]
    return read_table(arguments.future, text, others=known, decimal=arguments.decimal)


def _check_same(given: Mapping[str, Any], forecaster: Forecaster) -> None:
    """Raise an InputError if an option contradicts the saved model."""
    for name, value in given.items():
        saved = getattr(forecaster, name)
        is_several = name in (*_COLUMNS, "quantiles")
        same = _as_list(value) == _as_list(saved) if is_several else value == saved
        if not same:
            was = "was fitted without it" if saved is None else f"has {printable(saved)}"
            raise InputError(
                f"--{name} {printable(value)} contradicts --model, which {was}: leave it out, or "
                "fit a new model"
            )


def _write(
    forecaster: Forecaster,
    forecast: pd.DataFrame,
    table: pd.DataFrame | None,
    folder: Path,
    arguments: Arguments,
) -> None:
    """Write table, plot and model, all of them or none."""
    paths = _outputs(folder, arguments)
    with replace_files(*paths) as new_paths:
        write_forecast(forecast, new_paths[0], quote_formulas=arguments.quote_formulas)
        # whatever the suffix of the temporary file
        forecaster.plot(forecast, actual=table).savefig(new_paths[1], format="png")
        if arguments.save is not None:
            forecaster.set_params(verbose=True).save(new_paths[2])
    print(f"Wrote {', '.join(map(str, paths))}: {len(forecast):,} rows")


def _outputs(folder: Path, arguments: Arguments) -> list[Path]:
    """Return the files to write."""
    paths = [folder / "forecast.csv", folder / "forecast.png"]
    return paths if arguments.save is None else [*paths, arguments.save]


def _check_outputs(outputs: list[Path], arguments: Arguments) -> None:
    """Raise an InputError, before a long training, for files that must not be replaced."""
    given = [arguments.table, arguments.future, arguments.model]
    taken = {path.resolve() for path in given if path is not None}
    for path in outputs:
        option = "--save" if path is arguments.save else "--output"
        name = printable(path)
        if path.is_dir():
            raise InputError(f"{name} is a folder: name another place with {option}")
        if path.resolve() in taken:
            raise InputError(f"{name} would be replaced: name another place with {option}")
        taken.add(path.resolve())


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)
