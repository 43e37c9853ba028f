"""Data sets that hand out whole batches at memory speed."""

from pytorch_forecasting_mlstm.data._batched import BatchedTimeSeriesDataSet

__all__ = ["BatchedTimeSeriesDataSet"]
