"""Data sets that hand out whole batches at memory speed."""

from .batched import BatchedTimeSeriesDataSet

__all__ = ["BatchedTimeSeriesDataSet"]
