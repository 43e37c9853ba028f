"""`TimeSeriesDataSet` with whole batches gathered at once."""

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import pandas as pd
import torch
from pytorch_forecasting.data import TimeSeriesDataSet
from pytorch_forecasting.data.encoders import EncoderNormalizer, MultiNormalizer
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from .collate import Batch, assemble, encoder_normalizers
from .group_normalization import SeriesScales
from .label_encoding import vectorized_label_encoders
from .lazy_batch import PendingBatch
from .sample_index import construct_index


class BatchedTimeSeriesDataSet(TimeSeriesDataSet):
    r"""A `TimeSeriesDataSet` whose data loader gathers whole batches: the same batches, sooner.

    Constructor, methods and batches are those of ``pytorch_forecasting.TimeSeriesDataSet``: keys,
    order, dtypes and values agree to the last bit, for every model of pytorch-forecasting. The
    difference is the time: the stock class cuts, scales and stacks sample by sample in Python,
    this one fetches a batch with a handful of gathers over the tensors of the dataset. No sample is
    kept, so memory stays what it was, and ``filter``, ``set_overwrite_values`` and changes of the
    index act at once. It is faster to build, too.

    Parameters
    ----------
    data, time_idx, target, group_ids, ...
        as for ``pytorch_forecasting.TimeSeriesDataSet``

    Warns
    -----
    UserWarning
        once, where samples are needed one by one (for an ``EncoderNormalizer`` of your own, a
        ``__getitem__`` of your own, a ``collate_fn`` that reads samples, a ``ConcatDataset``); the
        reason is named, and batches come the stock way

    See Also
    --------
    wrap : turn a stock dataset into this one without building it again
    to : gather on an accelerator

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"series": "a", "time": range(8), "y": [0.0, 1, 2, 3, 4, 5, 6, 7]})
    >>> dataset = BatchedTimeSeriesDataSet(
    ...     table,
    ...     time_idx="time",
    ...     target="y",
    ...     group_ids=["series"],
    ...     max_encoder_length=4,
    ...     max_prediction_length=2,
    ...     time_varying_unknown_reals=["y"],
    ...     target_normalizer=None,
    ... )
    >>> x, (y, weight) = next(iter(dataset.to_dataloader(train=False, batch_size=2)))
    >>> x["encoder_target"]
    tensor([[0., 1., 2., 3.],
            [1., 2., 3., 4.]])
    >>> y
    tensor([[4., 5.],
            [5., 6.]])
    """

    _copy_on_device: dict[str, Any] | None = None
    _told_of_stock_path: tuple[str, ...] = ()

    @classmethod
    def wrap(cls, dataset: TimeSeriesDataSet) -> "BatchedTimeSeriesDataSet":
        """Turn a stock dataset into this one, without building it again.

        Parameters
        ----------
        dataset : TimeSeriesDataSet
            dataset. Its data are shared, not copied, and it can be used on. They are stored row by
            row from then on, unless encoders scale covariates, which takes no more memory and
            changes no number.

        Returns
        -------
        BatchedTimeSeriesDataSet
            dataset with the same samples

        Raises
        ------
        TypeError
            if ``dataset`` is no `TimeSeriesDataSet`, or of a class derived from it, whose own
            methods would be lost

        Examples
        --------
        ``loader = BatchedTimeSeriesDataSet.wrap(training).to_dataloader(batch_size=64)``
        """
        if not isinstance(dataset, TimeSeriesDataSet):
            raise TypeError(
                f"{cls.__name__}.wrap expects a TimeSeriesDataSet, got {type(dataset).__name__}; "
                f"build one from a table with {cls.__name__}(data, ...)"
            )
        if type(dataset) not in (TimeSeriesDataSet, BatchedTimeSeriesDataSet, cls):
            raise TypeError(
                f"{cls.__name__}.wrap expects a TimeSeriesDataSet, got {type(dataset).__name__}, "
                f"a class derived from it, whose own methods would be lost; derive that class "
                f"from {cls.__name__} instead"
            )
        by_column = _is_by_column(dataset.data["reals"])
        if not encoder_normalizers(dataset):  # these would round otherwise in the stock dataset
            _store_by_row(dataset.data)
        wrapped = cls.__new__(cls)
        wrapped.__dict__.update(dataset.__dict__)
        wrapped.data = dict(dataset.data)
        wrapped.__dict__.setdefault("_stock_by_column", by_column)
        if dataset._overwrite_values is not None:
            wrapped._overwrite_values = dict(dataset._overwrite_values)
        return wrapped

    def to(self, device: torch.device | str | int) -> "BatchedTimeSeriesDataSet":
        """Put a copy of the data on a device, where batches are then gathered.

        Only a few numbers per sample cross the bus for each batch. The data also stay in main
        memory, for the index, samplers and ``filter``; pickles, files and deep copies hold those
        alone, so that a dataset comes back from them on the CPU.

        Parameters
        ----------
        device : torch.device, str or int
            where batches shall be gathered, for example ``"cuda"``; ``"cpu"`` undoes it

        Returns
        -------
        BatchedTimeSeriesDataSet
            dataset with the same samples; this one is left as it is

        Notes
        -----
        Use ``num_workers=0`` and ``pin_memory=False``: worker processes would only bring batches
        back to the CPU. Gathered values are the same bits as on the CPU; scales that an
        ``EncoderNormalizer`` computes on another device differ by rounding. With
        ``add_target_scales`` and an ``EncoderNormalizer`` the scales of each batch visit the CPU,
        where the host's scikit-learn scalers live.

        Examples
        --------
        ``loader = training.to("cuda").to_dataloader(batch_size=64)``
        """
        moved = self.__copy__()
        if self._overwrite_values is not None:
            moved._overwrite_values = dict(self._overwrite_values)
        device = torch.device(device)
        moved._copy_on_device = (
            None
            if device.type == "cpu"
            else {name: _moved(values, device) for name, values in self.data.items()}
        )
        return moved

    @property
    def device(self) -> torch.device:
        """Device that batches are gathered on."""
        data = self.data if self._copy_on_device is None else self._copy_on_device
        return data["time"].device

    def to_dataloader(
        self,
        train: bool = True,
        batch_size: int = 64,
        batch_sampler: Any = None,
        **kwargs: Any,
    ) -> DataLoader:
        """Construct a data loader: the host's method, with batches gathered at once.

        Parameters
        ----------
        train, batch_size, batch_sampler, **kwargs
            as for ``pytorch_forecasting.TimeSeriesDataSet.to_dataloader``

        Returns
        -------
        DataLoader
            loader of ``x, (target, weight)``

        Raises
        ------
        ValueError
            if the data are on an accelerator and workers or pinned memory are asked for
        """
        if self._copy_on_device is not None:
            for name in ("num_workers", "pin_memory"):
                if kwargs.get(name):
                    raise ValueError(
                        f"{type(self).__name__}.to_dataloader expects {name}={type(kwargs[name])()}"
                        f" for data on {self.device}, got {kwargs[name]}: batches are gathered "
                        'there; leave it out, or go back to the CPU with .to("cpu")'
                    )
        reason = self._why_stock_path(encoder_normalizers(self))
        if reason is not None:
            self._tell_of_stock_path(reason)
        return super().to_dataloader(
            train=train, batch_size=batch_size, batch_sampler=batch_sampler, **kwargs
        )

    @classmethod
    def load(cls, fname: str) -> "BatchedTimeSeriesDataSet":
        """Load a dataset that was saved with ``save``, by this class or the stock one.

        Parameters
        ----------
        fname : str
            file. As with any pickle, load only what you trust.

        Returns
        -------
        BatchedTimeSeriesDataSet
            the dataset, on the CPU

        Raises
        ------
        TypeError
            if the file holds something else
        """
        loaded = torch.load(fname, weights_only=False)
        return loaded if isinstance(loaded, cls) else cls.wrap(loaded)

    def __getitem__(self, idx: int) -> Any:
        """Take a single sample: the host's method.

        Parameters
        ----------
        idx : int
            position in the index

        Returns
        -------
        tuple
            ``x, (target, weight)``, not padded
        """
        if self._stock_by_column == _is_by_column(self.data["reals"]) or not (
            encoder_normalizers(self)
        ):
            return super().__getitem__(idx)
        # How the numbers lie in memory decides on the last bit of what an encoder is scaled by.
        index = self.index.iloc[[idx]]
        first, last = int(index["index_start"].iloc[0]), int(index["index_end"].iloc[0])
        alone = self.__copy__()
        alone.index = index.assign(index_start=0, index_end=last - first)
        alone.data = {name: _rows(values, first, last) for name, values in self.data.items()}
        alone.data["reals"] = alone.data["reals"].t().contiguous().t()
        return TimeSeriesDataSet.__getitem__(alone, 0)

    def __getitems__(self, numbers: Sequence[int]) -> PendingBatch:
        """Take a batch of samples: torch's data loader asks for it, if it is there.

        Parameters
        ----------
        numbers : sequence of int
            positions in the index

        Returns
        -------
        PendingBatch
            the samples, gathered by ``_collate_fn``
        """
        return PendingBatch(self, numbers)

    @staticmethod
    def _collate_fn(batches: Any) -> Batch:
        if isinstance(batches, PendingBatch):
            return batches.collate()
        if isinstance(batches, list) and len(batches) > 1:
            _tell_of_single_samples()
        return TimeSeriesDataSet._collate_fn(batches)

    def _collated(self, numbers: Sequence[int]) -> Batch:
        on_device = self._copy_on_device is not None
        if on_device and get_worker_info() is not None:
            raise ValueError(
                f"{type(self).__name__} on {self.device} expects a DataLoader with num_workers=0, "
                'since batches are gathered there; set it, or go back to the CPU with .to("cpu")'
            )
        by_encoder = encoder_normalizers(self)
        reason = self._why_stock_path(by_encoder)
        if reason is None:
            return assemble(self, numbers, self._copy_on_device or self.data, by_encoder)
        self._tell_of_stock_path(reason)
        batch = TimeSeriesDataSet._collate_fn([self[number] for number in numbers])
        return _moved(batch, self.device) if on_device else batch

    def _why_stock_path(self, by_encoder: dict[str, Any]) -> str | None:
        """Name the setting that rules out gathering, if there is one."""
        if type(self).__getitem__ is not BatchedTimeSeriesDataSet.__getitem__:
            return f"{type(self).__name__} has a __getitem__ of its own"
        targets = dict(zip(self.target_names, self.target_normalizers, strict=True))
        for name, normalizer in (targets | by_encoder).items():
            kind = type(normalizer)
            if issubclass(kind, EncoderNormalizer) and kind is not EncoderNormalizer:
                return f"{kind.__name__}, the normalizer of {name!r}, is no plain EncoderNormalizer"
        kind = type(self.target_normalizer)
        if issubclass(kind, MultiNormalizer) and kind is not MultiNormalizer:
            return f"{kind.__name__}, the target normalizer, is no plain MultiNormalizer"
        if self.add_target_scales:
            for target in targets:
                for name in (f"{target}_center", f"{target}_scale"):
                    if name in by_encoder:
                        return f"the scaler of {name!r} is an EncoderNormalizer"
        overwritten = self._overwrite_values
        if overwritten is not None and isinstance(overwritten["target"], slice):
            return "values are overwritten at a slice of positions"
        return None

    def _tell_of_stock_path(self, reason: str) -> None:
        if reason not in self._told_of_stock_path:
            self._told_of_stock_path = (*self._told_of_stock_path, reason)
            warnings.warn(
                f"{type(self).__name__} fetches samples one by one, at the speed of "
                f"TimeSeriesDataSet: {reason}",
                UserWarning,
                stacklevel=3,
            )

    def _series_scales(self, target: int, normalizer: Any) -> SeriesScales:
        """Scales by series of a target that is not scaled by its encoder."""
        tables: dict[int, SeriesScales] = self.__dict__.setdefault("_scale_tables", {})
        groups = self.data["groups"]
        if target not in tables or not tables[target].still_hold(normalizer, groups):
            tables[target] = SeriesScales(normalizer, groups, self.group_ids)
        return tables[target]

    def _preprocess_data(self, data: pd.DataFrame) -> pd.DataFrame:
        with vectorized_label_encoders(self, data):
            return super()._preprocess_data(data)

    def _construct_index(self, data: pd.DataFrame, predict_mode: bool) -> pd.DataFrame:
        return construct_index(self, data, predict_mode)

    def _data_to_tensors(self, data: pd.DataFrame) -> dict[str, Any]:
        tensors: dict[str, Any] = super()._data_to_tensors(data)
        self._stock_by_column = _is_by_column(tensors["reals"])
        _store_by_row(tensors)
        return tensors

    def __copy__(self) -> "BatchedTimeSeriesDataSet":
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_copy_on_device", "_scale_tables")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}


@cache
def _tell_of_single_samples() -> None:
    """Warn, once: whoever fetched these samples keeps the dataset from seeing the batch."""
    warnings.warn(
        "BatchedTimeSeriesDataSet was asked for samples one by one, at the speed of "
        "TimeSeriesDataSet: the loader's dataset passes no batches on, as torch's ConcatDataset; "
        "build one dataset of all tables instead",
        UserWarning,
        stacklevel=3,
    )


def _is_by_column(values: Tensor) -> bool:
    return values.stride(0) == 1


def _store_by_row(data: dict[str, Any]) -> None:
    """Store tables as batches need them, so that a window is one run of memory."""
    for name in ("reals", "categoricals"):
        data[name] = data[name].contiguous()


def _rows(values: Any, first: int, last: int) -> Any:
    if isinstance(values, list):
        return [_rows(each, first, last) for each in values]
    return None if values is None else values[first : last + 1]


def _moved(values: Any, device: torch.device) -> Any:
    if isinstance(values, Tensor):
        return values.to(device)
    if isinstance(values, dict):
        return {name: _moved(value, device) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        return type(values)(_moved(value, device) for value in values)
    return values
