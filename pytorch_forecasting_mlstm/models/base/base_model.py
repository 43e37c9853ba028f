"""The base class of forecasting models: everything that does not depend on the network."""

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import pandas as pd
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.data import NaNLabelEncoder
from pytorch_forecasting.models.base import BaseModelWithCovariates
from pytorch_forecasting.utils import get_embedding_size
from torch import Tensor

from ..._arguments import suggest_arguments
from ..._v2_objects import reject_v2
from .arguments import FORECAST_HINTS, argument_names, check_arguments
from .checkpoint.mixin import SafeCheckpointMixin
from .checks.dataset import check_sample_construction
from .checks.loss import check_logging_metrics, check_losses, dry_run_loss
from .checks.mase import check_mase
from .checks.missing import find_missing_values
from .checks.mixin import InputValidationMixin
from .checks.nonfinite import check_centers, check_transformations
from .export import ExportMixin
from .forecast.forecast import forecast
from .losses.factory import resolve_loss
from .losses.link import link_of, loss_output_size, primary_metrics, target_normalizers
from .losses.mixin import LossMixin
from .losses.output import set_transformations
from .plotting import PlottingMixin
from .prediction import PredictionMixin
from .scales.flat import warn_of_flat_histories
from .scales.measure import measure_series_scales
from .scales.table import ReferenceScales, ScaleTable, TypicalScales

__all__ = ["ForecastingModel"]


class ForecastingModel(
    LossMixin,
    InputValidationMixin,
    SafeCheckpointMixin,
    PredictionMixin,
    PlottingMixin,
    ExportMixin,
    BaseModelWithCovariates,
):
    """A model of pytorch-forecasting with checks, safe checkpoints, forecasts and all losses.

    A subclass implements ``forward``, which maps a batch to ``to_network_output(prediction=...)``
    in the scale of the data, see :meth:`transform_output`. Its ``__init__`` passes copies of the
    loss and the metrics (:func:`~.losses.factory.clone_loss`,
    :func:`~.losses.factory.clone_logging_metrics`) and calls ``save_hyperparameters`` first. The
    hyper-parameters must include ``target``, ``output_size``, ``max_encoder_length``,
    ``max_prediction_length`` and those of
    :class:`~pytorch_forecasting.models.base.BaseModelWithCovariates`.

    Parameters
    ----------
    loss : Metric
        Loss of the model.
    logging_metrics : ModuleList
        Metrics of the point forecast to log.
    series_scales : dict of str to Tensor, optional
        Typical scales of the training series, see :class:`~.scales.table.TypicalScales`.
    **kwargs
        Arguments of :class:`~pytorch_forecasting.models.base.BaseModel`.
    """

    def __init__(
        self,
        loss: Any,
        logging_metrics: Any,
        series_scales: dict[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        check_arguments(type(self), kwargs)
        super().__init__(loss=loss, logging_metrics=logging_metrics, **kwargs)
        set_transformations(self.loss, self.output_transformer)
        self.scale_table = ScaleTable(
            None if series_scales is None else TypicalScales(**series_scales),
            targets=len(primary_metrics(self.loss)),
        )

    def reference_scales(self, x: dict[str, Any]) -> list[ReferenceScales]:
        """Return scales for samples whose history has no spread of its own, for each target.

        Parameters
        ----------
        x : dict
            Batch of a dataset.
        """
        references: list[ReferenceScales] = self.scale_table(x["groups"])
        return references

    def save_hyperparameters(self, *args: Any, frame: Any = None, **kwargs: Any) -> None:
        """Save the arguments of ``__init__``.

        Lightning warns that modules among them, such as the loss, do not belong in a checkpoint.
        pytorch-forecasting needs them there, and users can do nothing about it.

        Parameters
        ----------
        *args, frame, **kwargs
            Arguments of Lightning's ``save_hyperparameters``.
        """
        current = inspect.currentframe()
        if frame is None and current is not None:
            frame = current.f_back
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Attribute '.*' is an instance of")
            super().save_hyperparameters(*args, frame=frame, **kwargs)

    @classmethod
    def from_dataset(
        cls,
        dataset: TimeSeriesDataSet,
        allowed_encoder_known_variable_names: list[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Make a model that fits a dataset.

        Parameters
        ----------
        dataset : TimeSeriesDataSet
            Dataset to train on.
        allowed_encoder_known_variable_names : list of str, optional
            Known variables that may be read in the history. Default: all.
        **kwargs
            Arguments of the model. Lengths may exceed those of the dataset, and embeddings may
            have other widths; nothing else that follows from dataset and loss can be changed.

        Returns
        -------
        ForecastingModel
            The untrained model.

        Raises
        ------
        TypeError, ValueError
            If the loss does not suit the targets, or an argument is unknown or contradicts the
            dataset.
        """
        caller = cls.__name__
        check_arguments(cls, kwargs)
        reject_v2(dataset, caller, "dataset", "a TimeSeriesDataSet")
        if not isinstance(dataset, TimeSeriesDataSet):
            raise TypeError(
                f"{caller}: dataset must be a TimeSeriesDataSet, got {type(dataset).__name__}; "
                f"make one from the table first."
            )
        loss = resolve_loss(dataset, kwargs.pop("loss", None), caller)
        check_losses(loss, dataset, caller)
        check_transformations(dataset, caller)
        check_centers(dataset, caller)
        check_sample_construction(dataset, caller)
        normalizers = target_normalizers(dataset.target_normalizer)
        output_sizes = [
            loss_output_size(metric, normalizer)
            for metric, normalizer in zip(primary_metrics(loss), normalizers, strict=True)
        ]
        from_data = {
            "target": dataset.target,
            "output_size": output_sizes if dataset.multi_target else output_sizes[0],
            "max_encoder_length": dataset.max_encoder_length,
            "max_prediction_length": dataset.max_prediction_length,
            "embedding_sizes": _embedding_sizes(dataset, kwargs.pop("embedding_sizes", {}), caller),
        }
        if "missing_values" in argument_names(cls):
            requested = kwargs.pop("missing_values", None)
            from_data["missing_values"] = find_missing_values(dataset, requested, caller)
        for name in ("target", "output_size"):
            if kwargs.get(name, from_data[name]) != from_data[name]:
                raise ValueError(
                    f"{caller}: {name} follows from the dataset and the loss, here "
                    f"{from_data[name]!r}, got {kwargs[name]!r}; leave it out."
                )
        for name in ("max_encoder_length", "max_prediction_length"):
            if kwargs.get(name, from_data[name]) < from_data[name]:
                raise ValueError(
                    f"{caller}: {name} must be at least the dataset's {from_data[name]}, got "
                    f"{kwargs[name]}; leave it out, or make the dataset with a smaller one."
                )
        links = [link_of(metric) for metric in primary_metrics(loss)]
        from_data["series_scales"] = measure_series_scales(dataset, links)._asdict()
        warn_of_flat_histories(dataset, caller)
        model = super().from_dataset(
            dataset, allowed_encoder_known_variable_names, loss=loss, **{**from_data, **kwargs}
        )
        check_logging_metrics(model.logging_metrics, dataset, caller)
        check_mase(model.loss, model.logging_metrics, dataset, caller)
        dry_run_loss(model, dataset)
        return model

    @suggest_arguments(FORECAST_HINTS)
    def forecast(
        self,
        data: pd.DataFrame,
        future: pd.DataFrame | None = None,
        *,
        horizon: int | None = None,
        quantiles: Sequence[float] | None = None,
        num_paths: int = 100,
        seed: int = 0,
        batch_size: int = 64,
        trainer_kwargs: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Forecast the steps after the last row of every series in a table.

        Every series continues from its own last time index, so lengths and ends may differ. No
        placeholder rows for the horizon are needed. Of the history, only the last
        ``max_encoder_length`` steps are read, and before them as many rows as the largest lag. New
        series are forecast, too, with three exceptions: the dataset scales each series by its own
        training data; it has an embedding for each series; or a ``GroupNormalizer`` or
        ``MultiNormalizer`` needs the names of the series encoded. In these cases,
        ``categorical_encoders`` of the dataset must allow for new labels.

        Parameters
        ----------
        data : pandas.DataFrame
            The history: rows with all columns that the dataset was made from, in any order. Other
            columns, and the weight, are ignored. Targets and real variables that vary with time may
            be missing, as NaN: they are masked.
        future : pandas.DataFrame, optional
            What is known of the horizon: the group columns, the time index and the known
            variables, with one row per series and step. Rows outside of the horizon are ignored.
            This is required if the dataset has known variables other than those that follow from
            the history: the time index, lags, and what the dataset adds by itself. Static variables
            are taken from the last row of ``data``. In missing rows, variables with a
            ``constant_fill_strategy`` have that value. With ``allow_missing_timesteps``, a row that
            is missing before a later one repeats the row before it, as it does in the history.
        horizon : int, optional
            Number of steps to forecast. Default: ``max_prediction_length``. Fewer steps are the
            first ones of that forecast. More are forecast in blocks of that length: values that are
            drawn from the forecast of a block are fed back as history. This requires the known
            variables of all steps, and a model without past covariates.
        quantiles : sequence of float, optional
            Quantiles to return, for example ``[0.05, 0.95]``. Default: those of the loss. A
            distribution has all quantiles. Those of a quantile loss are interpolated linearly
            between the levels that it was trained with, and rejected outside of these.
        num_paths : int, default 100
            Number of sample paths per series with which to forecast beyond
            ``max_prediction_length``. The time grows with it; at most 2048 paths, or those of one
            series, are in memory at a time. A loss that forecasts a point needs only one path.
        seed : int, default 0
            Seed of all numbers that are drawn: for the sample paths, and for the mean and the
            quantiles of distributions that have no formula for them. The same arguments give the
            same forecast, in any number of threads, and torch's global generator stays as it is.
        batch_size : int, default 64
            Number of series to forecast at a time.
        trainer_kwargs : dict, optional
            Arguments of a Lightning ``Trainer`` that is to predict, for example ``{"precision":
            "bf16-mixed"}``. Default: no Trainer, which is faster; the model stays on its device.

        Returns
        -------
        pandas.DataFrame
            One row per series and step, with series in the order of ``data``. Its columns are the
            group columns; the time index, under its own name; ``step``, from 1; for several targets
            ``target``, with one row for each; ``prediction``, the point forecast in the unit of the
            data, or the most probable label of a categorical target; for each quantile one column,
            such as ``q0.1``, which do not cross; and for a categorical target the probability of
            each label, as ``p_label``.

        Raises
        ------
        TypeError, ValueError
            If the model was not made by :meth:`from_dataset`; if a column is missing or of the
            wrong type; if a value that is read is infinite, or missing where it may not be; if a
            label or series is unknown that the model has to know; if a series is too short; if a
            time index is missing or duplicated; if a known variable has no value; if the loss
            cannot forecast the ``quantiles``; if ``horizon`` is longer than that of training, and
            the model reads past covariates; or if a forecast is not finite.
        """
        return forecast(
            self,
            data,
            future,
            horizon=horizon,
            quantiles=quantiles,
            num_paths=num_paths,
            seed=seed,
            batch_size=batch_size,
            trainer_kwargs=trainer_kwargs,
        )


def _embedding_sizes(
    dataset: TimeSeriesDataSet, requested: dict[str, tuple[int, int]], caller: str
) -> dict[str, tuple[int, int]]:
    """Return classes and width of every categorical variable, lagged ones included."""
    encoders = dict(dataset._categorical_encoders)
    normalizers = target_normalizers(dataset.target_normalizer)
    for name, normalizer in zip(dataset.target_names, normalizers, strict=True):
        if isinstance(normalizer, NaNLabelEncoder):
            encoders[name] = normalizer
    sizes = {}
    for name, encoder in encoders.items():
        lagged = [f"{name}_lagged_by_{lag}" for lag in dataset._lags.get(name, [])]
        for variable in (name, *lagged):
            if variable in dataset.categoricals:
                classes = len(encoder.classes_)
                sizes[variable] = (classes, get_embedding_size(classes))
    unknown = sorted(set(requested) - set(sizes))
    if unknown:
        raise ValueError(
            f"{caller}: embedding_sizes must name categorical variables of the dataset, "
            f"{sorted(sizes)}, got {unknown}; correct or remove these."
        )
    return {**sizes, **requested}
