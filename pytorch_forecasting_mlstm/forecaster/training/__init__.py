"""Fit a model to a panel, calibrate it, forecast, update and tune it."""
