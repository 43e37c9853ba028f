"""What this package uses of pytorch-forecasting beyond its documented interface.

All such names are listed here. `tests/test_upstream_imports.py` fails, by its name, for each import
that another release of pytorch-forecasting lacks, and `tests/test_upstream.py` for each of the
others, and for each that the package uses without listing it.
"""

from typing import Any

from pytorch_forecasting import metrics
from pytorch_forecasting.data import encoders
from pytorch_forecasting.data.timeseries import _find_end_indices as stock_find_end_indices
from pytorch_forecasting.metrics.base_metrics import _base_metrics as base_metrics
from pytorch_forecasting.metrics.base_metrics._base_metrics import TorchMetricWrapper
from pytorch_forecasting.metrics.distributions import ImplicitQuantileNetwork
from pytorch_forecasting.models.base import BaseModel
from pytorch_forecasting.models.base._base_model import PredictCallback, Prediction
from pytorch_forecasting.models.base._base_object import _BasePtForecaster as BasePtForecaster

__all__ = [
    "ATTRIBUTES",
    "CELL_MODULES",
    "DATA_KEYS",
    "HOOKS",
    "HPARAMS_KEY",
    "HPARAMS_TYPE_KEY",
    "INDEX_COLUMNS",
    "MODELS",
    "MQF2_MODULE",
    "BasePtForecaster",
    "ImplicitQuantileNetwork",
    "NNLossAdapter",
    "PredictCallback",
    "Prediction",
    "SPECIAL_HPARAMS_KEY",
    "TorchMetricWrapper",
    "base_metrics",
    "coerce_metric",
    "encoders",
    "stock_find_end_indices",
]


def _first(module: Any, *names: str) -> Any:
    """Return what a module has under the first of these names: later releases rename."""
    for name in names:
        if hasattr(module, name):
            return getattr(module, name)
    raise ImportError(
        f"pytorch_forecasting_mlstm needs {' or '.join(names)} of {module.__name__}, got a "
        f"release of pytorch-forecasting without it; install one that pyproject.toml allows."
    )


#: Makes a metric of pytorch-forecasting of one of torchmetrics.
coerce_metric = _first(
    metrics,
    "coerce_to_pytorch_forecasting_metric",  # from 1.9 on
    "convert_torchmetric_to_pytorch_forecasting_metric",
)
#: Makes a metric of a loss of ``torch.nn``; None before 1.9.
NNLossAdapter: Any = getattr(metrics, "NNLossAdapter", None)

#: Entries of a checkpoint.
HPARAMS_KEY: str = BaseModel.CHECKPOINT_HYPER_PARAMS_KEY
HPARAMS_TYPE_KEY: str = BaseModel.CHECKPOINT_HYPER_PARAMS_TYPE
SPECIAL_HPARAMS_KEY: str = BaseModel.CHECKPOINT_HYPER_PARAMS_SPECIAL_KEY

#: Where models are looked up.
MODELS = "pytorch_forecasting.models"
#: Modules that hold the mLSTM cell: its definition, its use, its re-exports.
CELL_MODULES = (
    "pytorch_forecasting.layers._recurrent._mlstm.cell",
    "pytorch_forecasting.layers._recurrent._mlstm.layer",
    "pytorch_forecasting.layers._recurrent._mlstm",
    "pytorch_forecasting.layers._recurrent",
    "pytorch_forecasting.layers",
)
#: The network of MQF2DistributionLoss, which needs cpflows.
MQF2_MODULE = "pytorch_forecasting.metrics._mqf2_utils"

#: Attributes, by class, that are read, called, assigned or overridden.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "TimeSeriesDataSet": (
        "_categorical_encoders",
        "_check_tensors",
        "_collate_fn",
        "_constant_fill_strategy",
        "_construct_index",
        "_data_properties",
        "_data_to_tensors",
        "_get_lagged_names",
        "_group_ids",
        "_group_ids_mapping",
        "_lags",
        "_overwrite_values",
        "_preprocess_data",
        "_scalers",
        "_time_varying_known_reals",
        "_time_varying_unknown_reals",
        "_validate_data",
        "_variable_groups",
    ),
    "EncoderNormalizer": ("_method_kwargs",),
    "GroupNormalizer": ("_groups", "missing_", "norm_"),
    "CompositeMetric": ("_metrics", "_weights"),
    "NNLossAdapter": ("_loss", "_mode"),
    "NormalDistributionLoss": ("_transformation",),
    "PredictCallback": ("_reset_data", "_result"),
    "mLSTMTime": ("dataset_parameters", "pkg"),
}
#: Attributes that pytorch-forecasting looks for in classes and objects of this package.
HOOKS = ("_get_test_dataloaders_from", "_output_class", "_pkg")
#: Columns of ``TimeSeriesDataSet.index``, and keys of ``TimeSeriesDataSet.data``.
INDEX_COLUMNS = ("index_start", "sequence_length")
DATA_KEYS = ("groups", "reals", "target", "time")
