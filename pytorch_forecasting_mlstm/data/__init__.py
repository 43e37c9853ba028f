"""A `TimeSeriesDataSet` that loads whole batches at memory speed, also from shards of a table."""

from .batched import BatchedTimeSeriesDataSet
from .shard_loader import ShardLoader
from .shards import ParquetShards

__all__ = ["BatchedTimeSeriesDataSet", "ParquetShards", "ShardLoader"]
