"""`MLSTMForecaster`: the forecaster of tables as a forecaster of sktime."""

try:
    import sktime as _sktime  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "sktime":
        raise
    raise ModuleNotFoundError(
        "MLSTMForecaster needs sktime, which is not installed: "
        "pip install 'pytorch-forecasting-mlstm[sktime]'",
        name="sktime",
    ) from None

from .mlstm_forecaster import MLSTMForecaster

__all__ = ["MLSTMForecaster"]
