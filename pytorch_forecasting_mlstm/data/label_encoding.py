"""Label encoders that look at every distinct label once, for the time a dataset is built."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from pytorch_forecasting.data.encoders import (
    GroupNormalizer,
    MultiNormalizer,
    NaNLabelEncoder,
)


class VectorizedNaNLabelEncoder(NaNLabelEncoder):
    """`NaNLabelEncoder` that leaves repeated labels to pandas; the classes are the same."""

    def fit(self, y: Any, overwrite: bool = False) -> "VectorizedNaNLabelEncoder":
        """Learn the classes.

        Parameters
        ----------
        y : Series or ndarray
            labels
        overwrite : bool
            whether to forget classes learned before

        Returns
        -------
        VectorizedNaNLabelEncoder
            self
        """
        distinct = y.drop_duplicates() if isinstance(y, pd.Series) else pd.unique(y)
        return super().fit(distinct, overwrite=overwrite)

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
            as for `NaNLabelEncoder.transform`

        Returns
        -------
        ndarray or Tensor
            integers; with ``return_norm`` a tuple of them and the parameters
        """
        if not isinstance(y, pd.Series | np.ndarray) or y.ndim != 1:
            return super().transform(y, return_norm, target_scale, ignore_na)
        codes, distinct = pd.factorize(y, use_na_sentinel=False)
        encoded = super().transform(distinct, ignore_na=ignore_na)[codes]
        return (encoded, self.get_parameters()) if return_norm else encoded


@contextmanager
def vectorized_label_encoders(dataset: Any, data: pd.DataFrame) -> Iterator[None]:
    """Let vectorized encoders stand in for those that a dataset uses while it is built.

    Encoders that the host would make itself are put in place beforehand, in its order. Afterwards
    all are plain `NaNLabelEncoder` objects again, so that nothing that is saved with a dataset or
    a model asks for this package.

    Parameters
    ----------
    dataset : TimeSeriesDataSet
        dataset that is being built
    data : DataFrame
        its data before preprocessing
    """
    encoders = dataset._categorical_encoders
    for name in dataset._group_ids_mapping.values():
        encoders.setdefault(name, VectorizedNaNLabelEncoder())
    encodes_groups = isinstance(dataset.target_normalizer, GroupNormalizer | MultiNormalizer)
    for name in dict.fromkeys((dataset.group_ids if encodes_groups else []) + dataset.categoricals):
        if name not in encoders and name not in dataset.lagged_variables:
            encoders[name] = VectorizedNaNLabelEncoder()
            if name in dataset.target_names:  # of these the host fits only what it made itself
                encoders[name].fit(data[name])

    def in_use() -> list[Any]:
        return [*encoders.values(), *dataset.target_normalizers]

    try:
        for encoder in in_use():
            if type(encoder) is NaNLabelEncoder:
                encoder.__class__ = VectorizedNaNLabelEncoder
        yield
    finally:
        for encoder in in_use():
            if type(encoder) is VectorizedNaNLabelEncoder:
                encoder.__class__ = NaNLabelEncoder
