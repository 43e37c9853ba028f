"""Forecasting on DataFrames: panels, splits, training, baselines and metrics.

The steps, in order: `panel.make_panel` checks a table and places it on a time axis,
`splits.split_panel` splits it by time, `workflow.backtest` fits and evaluates the model,
`workflow.forecast` fits it again on all rows, and `forecast_frame.forecast_frame` returns the
result as a table. None of them prints, sets seeds or changes settings of the process.

Import each name from its module, for example::

    from pytorch_forecasting_mlstm.forecaster.panel import make_panel

The API reference lists all public names.
"""
