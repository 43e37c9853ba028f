"""A user's table: measure the model on its last rows, then forecast what comes after them."""

from __future__ import annotations

from ..forecaster.datasets import held_out_set, model_frame, training_set
from ..forecaster.errors import shown
from ..forecaster.evaluation import evaluate
from ..forecaster.forecast_frame import check_names, tidy_forecast, write_forecast
from ..forecaster.panel import read_table
from ..forecaster.splits import split_table
from ..forecaster.training import fit, predict_future, predict_quantiles
from .arguments import Arguments
from .extras import require
from .output import whole_files, writable_folder
from .plots import plot_future
from .report import error_table

_MOST_NAMED = 5  # values that were never seen so far


def run_forecast(arguments: Arguments) -> None:
    """Forecast a table: check, train, test, fit again on everything, write CSV and picture.

    Raises
    ------
    UserError
        Anything wrong with the table, the options or the folder.
    """
    assert arguments.table is not None
    require("matplotlib")
    folder = writable_folder(arguments.output)
    table = read_table(
        arguments.table,
        time=arguments.time,
        target=arguments.target,
        group=arguments.group,
        known=arguments.known,
        horizon=arguments.horizon,
    )
    check_names(table)
    split = split_table(table, arguments.horizon, arguments.history)
    count, lengths = len(table.values), table.lengths
    print(
        f"{shown(arguments.table.name)}: {lengths.sum():,} rows, {count} series, spacing "
        f"{table.axis.name}; looks back {split.history} steps"
    )
    if unseen := table.unseen(arguments.horizon):
        print(
            f"Known in advance, but never seen so far: {', '.join(unseen[:_MOST_NAMED])}"
            f"{f' and {len(unseen) - _MOST_NAMED} more' if len(unseen) > _MOST_NAMED else ''}; its "
            "effect is unknown"
        )
    print("1. Train without the last rows, choose the epoch on them, test on the very last")
    frame = model_frame(table, split)
    training = training_set(frame, split, end=split.validation)
    validation = held_out_set(training, frame, split.validation_origins, split.horizon)
    first = fit(training, validation, epochs=arguments.epochs, seed=arguments.seed)
    test = held_out_set(training, frame, split.test_origins, split.horizon)
    floor = table.floor()
    evaluation = evaluate(table, split, *predict_quantiles(first.model, test, frame, floor))
    print(f"\n{error_table(table, split, evaluation)}\n")

    print(f"2. Train afresh on all rows, for the {first.epoch} epochs that validated best")
    everything = training_set(frame, split, end=split.end)
    final = fit(everything, None, epochs=first.epoch, seed=arguments.seed)
    quantiles = predict_future(final.model, frame, floor)
    forecast = tidy_forecast(table, quantiles)
    if floor == 0:
        print("The target is never negative: nor are the forecasts")
    with whole_files(folder / "forecast.csv", folder / "forecast.png") as (rows, picture):
        write_forecast(forecast, rows, quote_formulas=arguments.quote_formulas)
        plot_future(table, split.horizon, quantiles, picture)
    print(f"Wrote {folder / 'forecast.csv'} ({len(forecast):,} rows) and {folder / 'forecast.png'}")
