"""`MLSTMForecaster`: the forecaster of tables as a forecaster of sktime."""

try:
    import sktime.forecasting as _  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in ("sktime", "sktime.forecasting"):  # something that sktime needs
        raise
    raise ModuleNotFoundError(
        "MLSTMForecaster needs sktime, which is not installed: "
        "pip install 'pytorch-forecasting-mlstm[sktime]'",
        name="sktime",
    ) from None

from .mlstm_forecaster import MLSTMForecaster

__all__ = ["MLSTMForecaster"]
