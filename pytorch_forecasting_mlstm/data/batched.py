"""`BatchedTimeSeriesDataSet`: a `TimeSeriesDataSet` that gathers whole batches at once."""

import inspect
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pytorch_forecasting.data import TimeSeriesDataSet, TorchNormalizer
from torch.utils.data import DataLoader, get_worker_info

from .._arguments import suggest_arguments
from .._safe_files.files import read_object, write_object
from .argument_hints import DATASET_HINTS, rejecting_v2
from .collate import Batch, collate_batch
from .fallback import fallback_reason, warn_single_samples
from .group_normalization import SeriesScales
from .label_encoding import distinct_label_encoders, text_to_categories
from .lazy_batch import LazyBatch, to_device
from .missing_values import (
    check_some_observed,
    check_values,
    fit_to_observed,
    fix_data_properties,
    nullable_to_float,
)
from .sample_index import build_sample_index
from .scaling import encoder_normalizers
from .table_checks import check_duplicates, check_index
from .tensors import store_by_row, to_tensors

_SETTINGS = [name for name in inspect.signature(TimeSeriesDataSet).parameters if name != "data"]


class BatchedTimeSeriesDataSet(TimeSeriesDataSet):
    r"""A `TimeSeriesDataSet` whose data loader gathers whole batches at once.

    The constructor, the methods and the batches are those of
    ``pytorch_forecasting.TimeSeriesDataSet``, so every model of pytorch-forecasting can use it. The
    keys of a batch, their order, dtypes and values are the same. Variables that are scaled by an
    ``EncoderNormalizer`` are equal up to rounding; everything else is equal to the last bit.

    The differences are speed and missing values. Real targets, and real variables that vary with
    time, may be missing, as NaN; batches carry the NaN, and normalizers and scalers are fitted to
    what is there. Models of this package mask missing values; those of pytorch-forecasting do not.

    `TimeSeriesDataSet` slices, scales and stacks sample by sample in Python; this class fetches a
    batch with a few gathers over the tensors of the dataset. It keeps no samples, so it needs no
    more memory, and ``filter``, ``set_overwrite_values`` and changes of the index take effect at
    once. It is also faster to build.

    Parameters
    ----------
    data, time_idx, target, group_ids, ...
        As for ``pytorch_forecasting.TimeSeriesDataSet``.

    Warns
    -----
    UserWarning
        Once for each setting that requires single samples, and thus the speed of
        `TimeSeriesDataSet`: a subclass of ``EncoderNormalizer``, a custom ``__getitem__``, a
        ``collate_fn`` that reads samples, a ``ConcatDataset``. The message names the setting.

    See Also
    --------
    wrap : Turn a `TimeSeriesDataSet` into this class without building it again.
    to : Gather on an accelerator.

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

    _data_on_device: dict[str, Any] | None = None
    _warned_reasons: tuple[str, ...] = ()

    # it keeps the signature, from which pytorch-forecasting reads the settings of a dataset
    __init__ = suggest_arguments(DATASET_HINTS)(rejecting_v2(TimeSeriesDataSet.__init__))
    from_dataset = classmethod(rejecting_v2(TimeSeriesDataSet.from_dataset.__func__))

    @classmethod
    @rejecting_v2
    def wrap(cls, dataset: TimeSeriesDataSet) -> "BatchedTimeSeriesDataSet":
        """Turn a `TimeSeriesDataSet` into this class without building it again.

        Parameters
        ----------
        dataset : TimeSeriesDataSet
            Dataset. It can still be used afterwards. Its data are shared, not copied. Its tables of
            reals and categoricals are stored row by row from then on, which needs no more memory
            and changes its batches by rounding at most, if normalizers scale covariates.

        Returns
        -------
        BatchedTimeSeriesDataSet
            Dataset with the same samples.

        Raises
        ------
        TypeError
            If ``dataset`` is not a `TimeSeriesDataSet`, or is an instance of a subclass, whose own
            methods would be lost.

        Examples
        --------
        >>> import pandas as pd
        >>> training = TimeSeriesDataSet(
        ...     pd.DataFrame({"series": "a", "time": range(8), "y": [0.0, 1, 2, 3, 4, 5, 6, 7]}),
        ...     time_idx="time",
        ...     target="y",
        ...     group_ids=["series"],
        ...     max_encoder_length=4,
        ...     max_prediction_length=2,
        ...     time_varying_unknown_reals=["y"],
        ...     target_normalizer=None,
        ... )
        >>> x, _ = BatchedTimeSeriesDataSet.wrap(training).__getitems__([0, 2]).collate()
        >>> x["encoder_target"]
        tensor([[0., 1., 2., 3.],
                [2., 3., 4., 5.]])
        """
        if not isinstance(dataset, TimeSeriesDataSet):
            raise TypeError(
                f"{cls.__name__}.wrap expects a TimeSeriesDataSet, got {type(dataset).__name__}; "
                f"build one from a table with {cls.__name__}(data, ...)"
            )
        if type(dataset) not in (TimeSeriesDataSet, BatchedTimeSeriesDataSet, cls):
            raise TypeError(
                f"{cls.__name__}.wrap expects a plain TimeSeriesDataSet, got "
                f"{type(dataset).__name__}, a subclass whose own methods would be lost; derive "
                f"that class from {cls.__name__} instead"
            )
        store_by_row(dataset.data)
        wrapped = cls.__new__(cls)
        wrapped.__dict__.update(dataset.__dict__)
        wrapped.data = dict(dataset.data)
        if dataset._overwrite_values is not None:
            wrapped._overwrite_values = dict(dataset._overwrite_values)
        return wrapped

    def to(self, device: torch.device | str | int) -> "BatchedTimeSeriesDataSet":
        """Copy the data to a device, where batches are then gathered.

        For a batch, only a few numbers per sample are then moved to the device. The data also stay
        in main memory for the index, samplers and ``filter``. Pickles, files and deep copies
        contain only the data in main memory, so a dataset is restored on the CPU.

        Parameters
        ----------
        device : torch.device, str or int
            Where to gather batches, for example ``"cuda"``. ``"cpu"`` reverts to the CPU.

        Returns
        -------
        BatchedTimeSeriesDataSet
            Dataset with the same samples; this one is left unchanged.

        Notes
        -----
        Use ``num_workers=0`` and ``pin_memory=False``: worker processes would only move batches
        back to the CPU. Gathered values are equal to those on the CPU to the last bit. The results
        of an ``EncoderNormalizer`` on another device are equal up to rounding. With
        ``add_target_scales`` and an ``EncoderNormalizer``, the scales of each batch are copied to
        the CPU for the scikit-learn scalers of pytorch-forecasting.

        Examples
        --------
        >>> loader = training.to("cuda").to_dataloader(batch_size=64)  # doctest: +SKIP
        """
        moved = self.__copy__()
        if self._overwrite_values is not None:
            moved._overwrite_values = dict(self._overwrite_values)
        device = torch.device(device)
        moved._data_on_device = None if device.type == "cpu" else to_device(self.data, device)
        return moved

    @property
    def device(self) -> torch.device:
        """Device on which batches are gathered."""
        return (self._data_on_device or self.data)["time"].device

    def to_dataloader(
        self,
        train: bool = True,
        batch_size: int = 64,
        batch_sampler: Any = None,
        **kwargs: Any,
    ) -> DataLoader:
        """Create a data loader whose batches are gathered at once.

        Parameters
        ----------
        train, batch_size, batch_sampler, **kwargs
            As for ``pytorch_forecasting.TimeSeriesDataSet.to_dataloader``.

        Returns
        -------
        DataLoader
            Loader of ``x, (target, weight)``.

        Raises
        ------
        ValueError
            If the data are on an accelerator and ``num_workers`` or ``pin_memory`` is set.
        """
        if self._data_on_device is not None:
            for name in ("num_workers", "pin_memory"):
                if kwargs.get(name):
                    raise ValueError(
                        f"{type(self).__name__}.to_dataloader expects {name}={type(kwargs[name])()}"
                        f" for data on {self.device}, got {kwargs[name]}: batches are gathered "
                        'there; leave it out, or go back to the CPU with .to("cpu")'
                    )
        reason = fallback_reason(self, encoder_normalizers(self))
        if reason is not None:
            self._warn_fallback(reason)
        return super().to_dataloader(
            train=train, batch_size=batch_size, batch_sampler=batch_sampler, **kwargs
        )

    def save(self, fname: str | Path) -> None:
        """Write the dataset with its data to a file, completely or not at all.

        The file holds plain data and tensors, with which :meth:`load` runs no code.

        Parameters
        ----------
        fname : str or Path
            File to write.

        Raises
        ------
        OSError
            If the file cannot be written. An earlier file of that name is unchanged.
        TypeError
            If a normalizer, a scaler or a transformation cannot be written as plain data, such as
            a lambda.
        """
        write_object(self, fname, "dataset")

    @classmethod
    def load(cls, fname: str | Path) -> "BatchedTimeSeriesDataSet":
        """Load a dataset that :meth:`save` has written, without running any code in the file.

        A file can name the normalizers and encoders of pytorch-forecasting and the scalers of
        scikit-learn that are on a list. Allow others with
        ``torch.serialization.add_safe_globals([MyNormalizer])``.

        Parameters
        ----------
        fname : str or Path
            The file.

        Returns
        -------
        BatchedTimeSeriesDataSet
            The dataset, on the CPU.

        Raises
        ------
        ValueError
            If the file names a class that is not allowed, contains something else, would expand to
            more than four times its size, or is damaged.
        pickle.UnpicklingError
            If it is a pickle, such as a file of ``TimeSeriesDataSet.save``, or has another format.
        """
        return read_object(
            cls,
            fname,
            "dataset",
            required=(*_SETTINGS, "data", "index"),
            convert=f"if you trust it, load it with {cls.__name__}.wrap(torch.load(path, "
            f"weights_only=False)), and save that",
        )

    def __getitems__(self, positions: Sequence[int]) -> LazyBatch:
        """Return the samples of a batch; the data loader of torch calls this if it exists.

        Parameters
        ----------
        positions : sequence of int
            Positions in the index.

        Returns
        -------
        LazyBatch
            The samples, which ``_collate_fn`` gathers.
        """
        return LazyBatch(self, positions)

    @staticmethod
    def _collate_fn(batches: Any) -> Batch:
        if isinstance(batches, LazyBatch):
            return batches.collate()
        if isinstance(batches, list) and len(batches) > 1:
            warn_single_samples()
        return TimeSeriesDataSet._collate_fn(batches)

    def _collate(self, positions: Sequence[int]) -> Batch:
        on_device = self._data_on_device is not None
        if on_device and get_worker_info() is not None:
            raise ValueError(
                f"{type(self).__name__} on {self.device} expects a DataLoader with num_workers=0, "
                'since batches are gathered there; set it, or go back to the CPU with .to("cpu")'
            )
        history_normalizers = encoder_normalizers(self)
        reason = fallback_reason(self, history_normalizers)
        if reason is None:
            return collate_batch(
                self, positions, self._data_on_device or self.data, history_normalizers
            )
        self._warn_fallback(reason)
        batch = TimeSeriesDataSet._collate_fn([self[position] for position in positions])
        return to_device(batch, self.device) if on_device else batch

    def _warn_fallback(self, reason: str) -> None:
        """Warn, once for each reason."""
        if reason not in self._warned_reasons:
            self._warned_reasons = (*self._warned_reasons, reason)
            warnings.warn(
                f"{type(self).__name__} loads samples one by one, at the speed of "
                f"TimeSeriesDataSet: {reason}",
                UserWarning,
                stacklevel=3,
            )

    def _series_scales(self, target: int, normalizer: Any) -> SeriesScales:
        """Return the scales by series of a target whose normalizer is not fitted to histories."""
        tables: dict[int, SeriesScales] = self.__dict__.setdefault("_scale_tables", {})
        groups = self.data["groups"]
        if target not in tables or not tables[target].is_current(normalizer, groups):
            tables[target] = SeriesScales(normalizer, groups, self.group_ids)
        return tables[target]

    def transform_values(self, name: str, values: Any, *args: Any, **kwargs: Any) -> Any:
        """Scale or encode values, as `TimeSeriesDataSet`, but with any `TorchNormalizer`."""
        if isinstance(values, pd.Series) and type(self.get_transformer(name)) is TorchNormalizer:
            values = values.to_numpy()  # it takes no table, which pytorch-forecasting passes
        return super().transform_values(name, values, *args, **kwargs)

    def _data_properties(self, data: pd.DataFrame) -> Any:
        return fix_data_properties(super()._data_properties(data), data)

    def _check_tensors(self, tensors: dict[str, Any]) -> None:
        check_values(self, tensors)

    def _validate_data(self, data: pd.DataFrame) -> None:
        caller = "BatchedTimeSeriesDataSet: data"
        check_index(data, caller)
        super()._validate_data(data)
        check_duplicates(data, self.group_ids, self.time_idx, caller)

    def _preprocess_data(self, data: pd.DataFrame) -> pd.DataFrame:
        data = nullable_to_float(data, [*self.target_names, *self.reals])
        text_to_categories(data, self.group_ids)
        check_some_observed(self, data)
        with fit_to_observed(self), distinct_label_encoders(self, data):
            return super()._preprocess_data(data)

    def _construct_index(self, data: pd.DataFrame, predict_mode: bool) -> pd.DataFrame:
        return build_sample_index(self, data, predict_mode)

    def _data_to_tensors(self, data: pd.DataFrame) -> dict[str, Any]:
        return to_tensors(self, data)

    def __copy__(self) -> "BatchedTimeSeriesDataSet":
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        excluded = ("_data_on_device", "_scale_tables", "_series_fallback")
        return {name: value for name, value in self.__dict__.items() if name not in excluded}
