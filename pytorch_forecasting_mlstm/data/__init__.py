"""A `TimeSeriesDataSet` that loads whole batches at memory speed."""

from .batched import BatchedTimeSeriesDataSet

__all__ = ["BatchedTimeSeriesDataSet"]
