"""Label encoders that look up each distinct label once while a dataset is built."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from pytorch_forecasting.data import (
    GroupNormalizer,
    MultiNormalizer,
    NaNLabelEncoder,
)


class DistinctLabelEncoder(NaNLabelEncoder):
    """Adapter that passes each distinct label to a `NaNLabelEncoder` once.

    pytorch-forecasting looks up the labels of a table row by row in Python. Here pandas finds the
    distinct labels, and their codes are spread over the rows. The classes and codes are the same,
    and the wrapped encoder is fitted.

    Parameters
    ----------
    encoder : NaNLabelEncoder
        Encoder to wrap.
    """

    def __init__(self, encoder: NaNLabelEncoder):
        self.encoder = encoder

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self.encoder, "classes_")

    def fit(self, y: Any, overwrite: bool = False) -> "DistinctLabelEncoder":
        """Learn the classes.

        Parameters
        ----------
        y : Series or ndarray
            Labels.
        overwrite : bool
            Whether to forget the classes learned before.

        Returns
        -------
        DistinctLabelEncoder
            self
        """
        distinct = y.drop_duplicates() if isinstance(y, pd.Series) else pd.unique(y)
        self.encoder.fit(distinct, overwrite=overwrite)
        return self

    def transform(
        self,
        y: Any,
        return_norm: bool = False,
        target_scale: Any = None,
        ignore_na: bool = False,
    ) -> Any:
        """Encode labels.

        Parameters
        ----------
        y, return_norm, target_scale, ignore_na
            As for `NaNLabelEncoder.transform`.

        Returns
        -------
        ndarray or Tensor
            Codes; with ``return_norm`` a tuple of the codes and the parameters.
        """
        if not isinstance(y, pd.Series | np.ndarray) or y.ndim != 1:
            return self.encoder.transform(y, return_norm, target_scale, ignore_na)
        rows, distinct = pd.factorize(y, use_na_sentinel=False)
        codes = self.encoder.transform(distinct, ignore_na=ignore_na)[rows]
        return (codes, self.encoder.get_parameters()) if return_norm else codes


def text_to_categories(data: pd.DataFrame, names: list[str]) -> None:
    """Convert columns of text to categories, which hold every distinct label once.

    pytorch-forecasting turns the names of series into Python strings, row by row. The encoders keep
    one of them per series, and Python then keeps the memory around it: more than the table.

    Parameters
    ----------
    data : DataFrame
        Data before preprocessing, changed in place.
    names : list of str
        Columns to convert. Others than text, and those with missing values, are left as they are.
    """
    for name in names:
        if isinstance(data[name].dtype, pd.StringDtype) and not data[name].hasnans:
            codes, labels = pd.factorize(data[name])
            # Arrow would make a new string for each row
            data[name] = pd.Categorical.from_codes(codes, labels.astype(object))


@contextmanager
def distinct_label_encoders(dataset: Any, data: pd.DataFrame) -> Iterator[None]:
    """Wrap the label encoders of a dataset while its data are preprocessed.

    Afterwards the dataset has its plain encoders again, now fitted. Saved datasets and models
    therefore do not need this package.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        Dataset that is being built.
    data : DataFrame
        Its data before preprocessing.
    """
    encoders, target_normalizer = dataset._categorical_encoders, dataset.target_normalizer
    _add_default_encoders(dataset, data)
    for name, encoder in encoders.items():
        encoders[name] = _wrap(encoder)
    multi = isinstance(target_normalizer, MultiNormalizer)
    if multi:
        normalizers = target_normalizer.normalizers
        target_normalizer.normalizers = [_wrap(normalizer) for normalizer in normalizers]
    else:
        dataset.target_normalizer = _wrap(target_normalizer)
    try:
        yield
    finally:
        for name, encoder in encoders.items():
            encoders[name] = _unwrap(encoder)
        dataset.target_normalizer = target_normalizer
        if multi:
            target_normalizer.normalizers = normalizers


def _add_default_encoders(dataset: Any, data: pd.DataFrame) -> None:
    """Add the encoders that pytorch-forecasting would create, in the same order."""
    encoders = dataset._categorical_encoders
    for name in dataset._group_ids_mapping.values():
        encoders.setdefault(name, NaNLabelEncoder())
    encodes_groups = isinstance(dataset.target_normalizer, GroupNormalizer | MultiNormalizer)
    for name in dict.fromkeys((dataset.group_ids if encodes_groups else []) + dataset.categoricals):
        if name not in encoders and name not in dataset.lagged_variables:
            encoders[name] = NaNLabelEncoder()
            if name in dataset.target_names:
                # pytorch-forecasting fits the encoder of a target only if it has created it.
                _wrap(encoders[name]).fit(data[name])


def _wrap(encoder: Any) -> Any:
    return DistinctLabelEncoder(encoder) if type(encoder) is NaNLabelEncoder else encoder


def _unwrap(encoder: Any) -> Any:
    return encoder.encoder if isinstance(encoder, DistinctLabelEncoder) else encoder
