"""Forecasts of the steps after a table, as a table."""
