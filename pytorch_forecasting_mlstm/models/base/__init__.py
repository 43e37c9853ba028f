"""A model class of pytorch-forecasting for any network: checks, checkpoints, losses, forecasts."""
