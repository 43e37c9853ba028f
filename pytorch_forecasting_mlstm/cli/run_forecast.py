"""Forecast a user's table: test the forecast on its last rows, fit, and forecast beyond them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .._messages import printable
from ..forecaster import Forecaster, InputError
from .arguments import PARAMETERS, Arguments
from .console import require_packages
from .output import replace_files, writable_folder, write_forecast
from .read_holidays import read_holidays
from .read_table import read_table

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
    given = dict(arguments.parameters)
    if "holidays" in given:
        given["holidays"] = read_holidays(given["holidays"])
    if arguments.model is None:
        assert arguments.table is not None
        forecaster = Forecaster(**given, verbose=sys.stderr.isatty())
        table, future = _read(arguments.table, forecaster, arguments), _plan(forecaster, arguments)
        if arguments.save is not None:
            writable_folder(arguments.save.absolute().parent, option="save")
        forecaster.check(table, future)
        _fit(forecaster, table, arguments)
        forecast = forecaster.predict(future=future)
        actual = None
    else:
        forecaster = Forecaster.load(arguments.model)
        horizon = given.pop("horizon", None)
        _check_same(given, forecaster)
        actual = None
        if arguments.table is not None:
            actual = _read(arguments.table, forecaster, arguments)
        forecast = forecaster.predict(actual, _plan(forecaster, arguments), horizon)
        print(f"{printable(arguments.model.name)}: nothing is trained")
    _write(forecaster, forecast, actual, folder, arguments)


def _fit(forecaster: Forecaster, table: pd.DataFrame, arguments: Arguments) -> None:
    """Test and fit, and print what is known of the errors."""
    assert arguments.table is not None
    print(
        f"{printable(arguments.table.name)}: {len(table):,} rows; choosing on all but the last "
        "ones, testing on these, then training on all rows",
        flush=True,
    )
    forecaster.fit(table, cutoffs=arguments.cutoffs or "auto")
    print(f"Model: looks back {forecaster.history_} steps, trained for {forecaster.epochs_} epochs")
    if forecaster.backtest_ is not None:
        print(f"\n{forecaster.backtest_.summary()}\n")


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


def _plan(forecaster: Forecaster, arguments: Arguments) -> pd.DataFrame | None:
    """Read what is known of the steps to forecast."""
    if arguments.future is None:
        return None
    if not forecaster.known:
        raise InputError("--future has no effect without known columns: name them with --known")
    return read_table(
        arguments.future,
        text=[*_as_list(forecaster.group), forecaster.time],
        others=_as_list(forecaster.known),
        decimal=arguments.decimal,
    )


def _check_same(given: Mapping[str, Any], forecaster: Forecaster) -> None:
    """Raise an InputError if an option contradicts the saved model."""
    for name in PARAMETERS:
        if name not in given:
            continue
        saved = getattr(forecaster, name)
        is_several = name in _COLUMNS or name == "quantiles"
        same = _as_list(given[name]) == _as_list(saved) if is_several else given[name] == saved
        if not same:
            was = "was fitted without it" if saved is None else f"has {printable(saved)}"
            raise InputError(
                f"--{name} {printable(given[name])} contradicts --model, which {was}: leave it "
                "out, or fit a new model"
            )


def _write(
    forecaster: Forecaster,
    forecast: pd.DataFrame,
    actual: pd.DataFrame | None,
    folder: Path,
    arguments: Arguments,
) -> None:
    """Write table, plot and model, all of them or none."""
    csv, png = folder / "forecast.csv", folder / "forecast.png"
    paths = [csv, png, *([] if arguments.save is None else [arguments.save])]
    with replace_files(*paths) as new_paths:
        write_forecast(forecast, new_paths[0], quote_formulas=arguments.quote_formulas)
        figure = forecaster.plot(forecast, actual=actual)
        figure.savefig(new_paths[1], format="png")  # whatever the suffix of the temporary file
        if arguments.save is not None:
            forecaster.set_params(verbose=True).save(new_paths[2])
    names = " and ".join(str(path) for path in paths[1:])
    print(f"Wrote {csv} ({len(forecast):,} rows) and {names}")


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)
