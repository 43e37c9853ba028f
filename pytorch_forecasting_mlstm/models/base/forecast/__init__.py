"""Forecast the steps after a table, and return them as a table."""
