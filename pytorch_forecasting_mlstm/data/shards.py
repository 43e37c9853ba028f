"""`ParquetShards`: a table larger than memory, in files of Parquet that are read one by one."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype
from pytorch_forecasting.data import TimeSeriesDataSet
from pytorch_forecasting.utils import to_list

from .._messages import format_series
from .._safe_files.files import read_object, write_object
from .._validation import check_int
from .batched import BatchedTimeSeriesDataSet
from .shard_loader import ShardLoader
from .shard_statistics import build_shard, fit_labels, merge_statistics, read_shard

__all__ = ["ParquetShards"]

Path_ = str | Path


class ParquetShards(Sequence[BatchedTimeSeriesDataSet]):
    """A table larger than memory, in files of Parquet that hold whole series.

    A shard becomes a `BatchedTimeSeriesDataSet` when it is needed, with the scalers, normalizers
    and encoders of all shards, so that its windows are those of a dataset of the whole table. One
    shard is in memory at a time.

    Parameters
    ----------
    paths : sequence of str or Path
        Files of Parquet, each with whole series. Rows may be in any order.
    dataset : TimeSeriesDataSet
        Dataset of a representative table, such as one of the shards. Its settings and statistics
        are those of all shards, and its group ids need not contain their series. Where names of
        series are an input, or the groups of a ``GroupNormalizer``, its encoders must allow new
        ones, as in ``categorical_encoders={"shop": NaNLabelEncoder(add_nan=True)}``. A
        ``GroupNormalizer`` gives these the median scale; use :meth:`fit` to fit it to all.

    Attributes
    ----------
    paths : list of str
        The files. Set it when they have been moved.
    parameters : dict
        Parameters of the datasets, for ``BatchedTimeSeriesDataSet.from_parameters``.
    windows : list of int
        Number of windows in each shard.

    Raises
    ------
    ImportError
        If no library that reads Parquet is installed.
    ValueError
        If there are no files, a file has no window or lacks a column, or a series is in several
        files.

    See Also
    --------
    fit : Fit the statistics to all shards.
    to_dataloader : Load batches in one or several processes.

    Examples
    --------
    >>> import pandas as pd
    >>> from tempfile import TemporaryDirectory
    >>> from pytorch_forecasting import GroupNormalizer
    >>> folder = TemporaryDirectory()
    >>> paths = [f"{folder.name}/{name}.parquet" for name in "ab"]
    >>> for name, path in zip("ab", paths):
    ...     table = pd.DataFrame({"series": name, "time": range(8), "y": [0.0, 1, 2, 3] * 2})
    ...     table.to_parquet(path)
    >>> shards = ParquetShards.fit(
    ...     paths,
    ...     time_idx="time",
    ...     target="y",
    ...     group_ids=["series"],
    ...     max_encoder_length=4,
    ...     max_prediction_length=2,
    ...     time_varying_unknown_reals=["y"],
    ...     target_normalizer=GroupNormalizer(groups=["series"]),
    ... )
    >>> shards.windows, len(shards.to_dataloader(batch_size=2, seed=0))
    ([3, 3], 3)
    >>> folder.cleanup()
    """

    def __init__(self, paths: Sequence[Path_], dataset: TimeSeriesDataSet) -> None:
        if not isinstance(dataset, TimeSeriesDataSet):
            raise TypeError(
                f"ParquetShards: dataset must be a TimeSeriesDataSet, got "
                f"{type(dataset).__name__}; make one from a representative table, or call "
                f"ParquetShards.fit(paths, ...) with its arguments."
            )
        paths = _check_paths(paths)
        series = _find_series(paths, list(dataset.group_ids))
        self._describe(paths, dataset, series)
        self.windows = [len(build_shard(path, self.parameters)) for path in self.paths]

    def _describe(self, paths: list[str], dataset: TimeSeriesDataSet, series: pd.DataFrame) -> None:
        """Set paths, and parameters whose encoders know all series."""
        self.paths = paths
        self.parameters = deepcopy(dataset.get_parameters())
        encoders = self.parameters["categorical_encoders"]
        for name, column in dataset._group_ids_mapping.items():
            encoders[column].fit(series[name].to_numpy(), overwrite=False)

    @classmethod
    def fit(cls, paths: Sequence[Path_], **settings: Any) -> "ParquetShards":
        """Fit scalers, normalizers and encoders to all shards, one shard at a time.

        The result is that of a dataset of the whole table, up to rounding. This reads every file in
        full, the first one twice, and some of its columns twice before: call it once, and let the
        processes :meth:`load` what :meth:`save` has written.

        Parameters
        ----------
        paths : sequence of str or Path
            Files of Parquet, each with whole series.
        **settings
            Arguments of `BatchedTimeSeriesDataSet`, except for ``data``. ``target_normalizer`` is
            required. What cannot be fitted to one shard after the other must be fitted before, for
            example ``scalers={"price": RobustScaler().fit(sample[["price"]])}``: quantiles, a
            ``TorchNormalizer``, and a ``GroupNormalizer`` whose groups span several files.

        Returns
        -------
        ParquetShards
            The shards.

        Raises
        ------
        ValueError
            If a statistic cannot be fitted to one shard after the other.
        """
        if settings.get("target_normalizer", "auto") == "auto":
            raise ValueError(
                "ParquetShards.fit: target_normalizer must be given, got 'auto', which needs the "
                "whole table; pass for example EncoderNormalizer() or GroupNormalizer(groups=...)."
            )
        paths = _check_paths(paths)
        series = _find_series(paths, to_list(settings["group_ids"]))
        settings = {**settings, **fit_labels(paths, settings)}
        parts, windows = [], []
        for path in paths:
            dataset = build_shard(path, settings)
            parts.append((dataset._scalers, dataset.target_normalizer))
            windows.append(len(dataset))
        dataset._scalers, dataset.target_normalizer = merge_statistics(parts, settings)
        shards = cls.__new__(cls)
        shards._describe(paths, dataset, series)
        shards.windows = windows  # statistics do not change their number
        return shards

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: Any) -> BatchedTimeSeriesDataSet:
        """Read a shard, and return its dataset.

        Raises
        ------
        ValueError
            If the file has changed since its windows were counted.
        """
        path = self.paths[number]
        dataset = build_shard(path, self.parameters)
        if len(dataset) != self.windows[number]:
            raise ValueError(
                f"ParquetShards: {path!r} must have {self.windows[number]} windows as when it was "
                f"read first, got {len(dataset)}; make the shards again."
            )
        return dataset

    def to_dataloader(
        self, train: bool = True, batch_size: int = 64, *, seed: int = 0
    ) -> ShardLoader:
        """Load batches of all shards, in one or several processes.

        The windows of an epoch are put in an order, shard after shard, and every process takes an
        equal part of it. It reads the shards that its part touches, so a shard at the border of two
        parts is read by two processes. Batches do not depend on where shards begin.

        Parameters
        ----------
        train : bool, default True
            Whether to shuffle the shards and the windows within each shard, in every epoch in
            another order, and to leave out the windows at the end of the order that do not fill a
            batch of every process. Otherwise all windows come in order; if the processes cannot
            share them evenly, the first are repeated, at most one for each process.
        batch_size : int, default 64
            Windows in a batch of one process.
        seed : int, default 0
            Seed of the order, the same in all processes.

        Returns
        -------
        ShardLoader
            Loader for a Lightning ``Trainer``, from whose checkpoints it resumes within an epoch.

        Raises
        ------
        ValueError
            If ``batch_size`` is not positive.
        """
        check_int("ParquetShards.to_dataloader", "batch_size", batch_size)
        check_int("ParquetShards.to_dataloader", "seed", seed, minimum=0)
        return ShardLoader(self, batch_size, seed if train else None)

    def save(self, path: Path_) -> None:
        """Write paths, parameters and numbers of windows to a file, without the data.

        The file holds plain data and tensors, with which :meth:`load` runs no code.

        Parameters
        ----------
        path : str or Path
            File to write, completely or not at all.

        Raises
        ------
        OSError
            If the file cannot be written. An earlier file of that name is unchanged.
        TypeError
            If a normalizer, a scaler or a transformation cannot be written as plain data, such as
            a lambda.
        """
        write_object(self, path, "list of shards")

    @classmethod
    def load(cls, path: Path_) -> "ParquetShards":
        """Load what :meth:`save` has written, without running any code in the file.

        A file can name the normalizers and encoders of pytorch-forecasting and the scalers of
        scikit-learn that are on a list. Allow others with
        ``torch.serialization.add_safe_globals([MyNormalizer])``.

        Parameters
        ----------
        path : str or Path
            The file.

        Returns
        -------
        ParquetShards
            The shards.

        Raises
        ------
        ValueError
            If the file names a class that is not allowed, contains something else, would expand to
            more than four times its size, or is damaged.
        pickle.UnpicklingError
            If it is a pickle, or has another format.
        """
        return read_object(
            cls,
            path,
            "list of shards",
            required=("paths", "parameters", "windows"),
            convert=f"if you trust it, load it with torch.load(path, weights_only=False), and save "
            f"that; or make the shards again with {cls.__name__}.fit",
        )


def _check_paths(paths: Sequence[Path_]) -> list[str]:
    if isinstance(paths, str | Path):
        raise TypeError(
            f"ParquetShards: paths must be a sequence of files, got {str(paths)!r}; pass for "
            f"example sorted(Path('shards').glob('*.parquet'))."
        )
    checked = [str(path if "://" in str(path) else Path(path).absolute()) for path in paths]
    if not checked:
        raise ValueError("ParquetShards: paths must name at least one file, got none.")
    return checked


def _check_names(name: str, columns: list[pd.Series], paths: list[str]) -> None:
    """Raise if names are missing, or are numbers in one file and text in another."""
    for path, column in zip(paths, columns, strict=True):
        if column.isna().any():
            raise ValueError(
                f"ParquetShards: {name!r} must name the series of every row, got missing values in "
                f"{path!r}; fill them in."
            )
    kinds = ["numbers" if is_numeric_dtype(column.dtype) else "text" for column in columns]
    for path, kind in zip(paths, kinds, strict=True):
        if kind != kinds[0]:
            raise ValueError(
                f"ParquetShards: {name!r} must have one type in all files, got {kinds[0]} in "
                f"{paths[0]!r} and {kind} in {path!r}; write the files with one type."
            )


def _find_series(paths: list[str], group_ids: list[str]) -> pd.DataFrame:
    """Return the names of all series, and raise if one of them is in two files."""
    keys = [read_shard(path, group_ids).drop_duplicates().assign(__file__=path) for path in paths]
    for name in group_ids:
        _check_names(name, [key[name] for key in keys], paths)
    series = pd.concat(keys, ignore_index=True)
    repeated = series.duplicated(group_ids, keep=False)
    if repeated.any():
        first = series.loc[repeated].iloc[0]
        same = (series[group_ids] == first[group_ids]).all(axis=1)
        files = series.loc[same, "__file__"].tolist()
        raise ValueError(
            f"ParquetShards: each series must be in one file, got "
            f"{format_series(group_ids, first[group_ids])} in {files[0]!r} and {files[1]!r}; write "
            f"all rows of a series to the same file."
        )
    return series
