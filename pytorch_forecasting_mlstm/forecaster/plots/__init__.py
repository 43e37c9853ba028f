"""Plots of forecasts and backtests."""
