"""Forecast a user's table: evaluate on its last rows, then forecast beyond them."""

from __future__ import annotations

from lightning import seed_everything

from .._messages import printable
from ..forecaster.forecast_frame import check_column_names, forecast_frame
from ..forecaster.panel import make_panel
from ..forecaster.splits import split_panel
from ..forecaster.workflow import backtest, forecast
from .arguments import Arguments
from .console import require_packages
from .output import replace_files, writable_folder, write_forecast
from .plots import plot_future
from .read_table import read_table
from .report import format_metrics, print_epoch

_MAX_NAMED = 5  # unseen categories


def run_forecast(arguments: Arguments) -> None:
    """Forecast a table: check, fit, evaluate, fit again on all rows, write CSV and plot.

    Raises
    ------
    InputError
        If the table, an option or the folder cannot be used.
    """
    assert arguments.table is not None
    require_packages("matplotlib")
    folder = writable_folder(arguments.output)
    source = printable(arguments.table.name)
    data = read_table(
        arguments.table,
        text=[*arguments.group, arguments.time],
        inferred=[arguments.target, *arguments.known],
    )
    panel = make_panel(
        data,
        time=arguments.time,
        target=arguments.target,
        group=arguments.group,
        known=arguments.known,
        horizon=arguments.horizon,
        source=source,
    )
    check_column_names(panel)
    split = split_panel(panel, arguments.horizon, arguments.history)
    print(
        f"{source}: {panel.lengths.sum():,} rows, {len(panel.values)} series, spacing "
        f"{panel.axis.name}; history of {split.history} steps"
    )
    if unseen := panel.unseen_categories(arguments.horizon):
        more = f" and {len(unseen) - _MAX_NAMED} more" if len(unseen) > _MAX_NAMED else ""
        print(
            f"Known in advance, but never seen so far: {', '.join(unseen[:_MAX_NAMED])}{more}; "
            "the effect is unknown"
        )

    print("1. Train without the last rows, select the epoch on them, test on the very last")
    seed_everything(arguments.seed, verbose=False)
    result = backtest(
        panel, split, epochs=arguments.epochs, seed=arguments.seed, on_epoch=print_epoch
    )
    print(f"\n{format_metrics(panel, split, result.evaluation)}\n")

    epoch = result.fitted.epoch
    print(f"2. Train again on all rows, for the {epoch} epochs that validated best")
    seed_everything(arguments.seed, verbose=False)
    quantiles = forecast(panel, split, epochs=epoch, seed=arguments.seed, on_epoch=print_epoch)
    if panel.lower_bound() == 0:
        print("The target is never negative, so the forecasts are not either")
    rows = forecast_frame(panel, quantiles)
    csv, png = folder / "forecast.csv", folder / "forecast.png"
    with replace_files(csv, png) as (new_csv, new_png):
        write_forecast(rows, new_csv, quote_formulas=arguments.quote_formulas)
        plot_future(panel, split.horizon, quantiles, arguments.table.stem, new_png)
    print(f"Wrote {csv} ({len(rows):,} rows) and {png}")
