"""A mixin that checks every dataset before its first batch, and every batch for NaN and inf."""

from typing import Any

import pandas as pd
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import CombinedLoader
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.models.base import BaseModel
from pytorch_forecasting.utils import to_list
from torch.utils.data import Subset

from ....data import ShardLoader
from .adoption import adopt_shards, adopt_statistics, check_statistics
from .dataset import check_dataset, dataset_from_frame, require_batch
from .history_scales import check_history_scales
from .nonfinite import check_finite

__all__ = ["InputValidationMixin"]


class InputValidationMixin(BaseModel):
    """A model of pytorch-forecasting that rejects data that it cannot read.

    It checks data in training, validation, tests and predictions. Batches are checked before they
    are moved to an accelerator, so that the check forces no synchronization.
    """

    def on_train_start(self) -> None:
        """Check the dataset to train on, take over its statistics, and compare the others."""
        super().on_train_start()
        for dataset in self._check_datasets(self.trainer.train_dataloader):
            adopt_statistics(self, dataset)
        for loader in _loaders(self.trainer.train_dataloader):
            if isinstance(loader, ShardLoader):
                adopt_shards(self, loader.shards)
        for dataset in _datasets(self.trainer.val_dataloaders):
            check_dataset(self, dataset)
            check_statistics(self, dataset)

    def on_validation_start(self) -> None:
        """Check the datasets to validate on."""
        super().on_validation_start()
        datasets = self._check_datasets(self.trainer.val_dataloaders)
        if self.trainer.state.fn != TrainerFn.FITTING:  # where the training dataset comes first
            for dataset in datasets:
                check_statistics(self, dataset)

    def on_test_start(self) -> None:
        """Check the datasets to test on."""
        super().on_test_start()
        for dataset in self._check_datasets(self.trainer.test_dataloaders):
            check_statistics(self, dataset)

    def on_predict_start(self) -> None:
        """Check the datasets to predict."""
        super().on_predict_start()
        for dataset in self._check_datasets(self.trainer.predict_dataloaders):
            check_statistics(self, dataset)

    def _check_datasets(self, loaders: Any) -> list[TimeSeriesDataSet]:
        datasets = _datasets(loaders)
        for dataset in datasets:
            check_dataset(self, dataset)
        return datasets

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Check a batch for numbers that are not finite."""
        if isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[0], dict):
            x, y = batch
            require_batch(x, type(self).__name__)
            check_finite(self, x, None if self.predicting else y)
            check_history_scales(self, x)
        return super().on_before_batch_transfer(batch, dataloader_idx)

    def check_inputs(self, x: dict[str, Any]) -> None:
        """Check what the network reads of a batch for numbers that are not finite.

        Parameters
        ----------
        x : dict
            Batch of a dataset.
        """
        check_finite(self, x)
        check_history_scales(self, x)

    def predict(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Predict, also in cases where ``BaseModel.predict`` fails.

        Batches may differ in the lengths of their horizons: after the end of a sample's horizon,
        the output is NaN and ``x`` and ``y`` are 0, as in a batch of the loader. All results are on
        the CPU.

        The same call gives the same numbers, in any number of threads, and torch's global generator
        stays as it is: what distributions draw for a mean or quantiles without a formula depends on
        the number of the batch alone. For other draws, call ``to_prediction`` or ``to_quantiles``
        on the raw output.

        Parameters
        ----------
        data : DataLoader, DataFrame or TimeSeriesDataSet
            What to predict; for a table, the last window of every series.
        *args, **kwargs
            Arguments of ``BaseModel.predict``. ``mode``: ``"prediction"``, ``"quantiles"``,
            ``"raw"`` or ``("raw", "prediction")``. Quantiles are sorted, as in ``forecast``, except
            for those of the raw output. ``return_x``, ``return_y``, ``return_index``,
            ``return_decoder_lengths``: what else to return. ``trainer_kwargs`` are not modified,
            and may include callbacks. With ``output_dir``, batches are written there to
            ``predictions_0.pt`` and so on, or with ``write_interval="epoch"`` everything to
            ``predictions.pt``, and None is returned.

        Returns
        -------
        Prediction or Tensor or list of Tensor
            What the mode and the ``return_*`` arguments ask for. With several processes, each
            returns the predictions of all, in the order of the dataset.

        Raises
        ------
        TypeError, ValueError
            If the data have other columns, labels, lengths or targets than the model was made for,
            or numbers that are not finite, or if there is no such mode.
        """
        if isinstance(data, pd.DataFrame):
            data = dataset_from_frame(self, data)
        return super().predict(data, *args, **kwargs)


def _loaders(loaders: Any) -> list[Any]:
    if isinstance(loaders, CombinedLoader):
        loaders = loaders.flattened
    return list(loaders.values()) if isinstance(loaders, dict) else to_list(loaders)


def _datasets(loaders: Any) -> list[TimeSeriesDataSet]:
    """Return the datasets of loaders, also those of which a loader has a subset."""
    datasets = []
    for loader in _loaders(loaders):
        dataset = getattr(loader, "dataset", None)
        while isinstance(dataset, Subset):
            dataset = dataset.dataset
        if isinstance(dataset, TimeSeriesDataSet):
            datasets.append(dataset)
    return datasets
