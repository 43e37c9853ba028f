"""Forecasting on DataFrames: panels, splits, training, baselines and metrics.

A table goes one way through these modules: `panel.make_panel` checks it and places it on a time
axis, `splits.split_panel` divides it by time, `workflow.backtest` fits and evaluates the model,
`workflow.forecast` fits it again on all rows, and `forecast_frame.forecast_frame` writes the result
as a table. None of them prints, seeds or changes settings of the process.
"""
