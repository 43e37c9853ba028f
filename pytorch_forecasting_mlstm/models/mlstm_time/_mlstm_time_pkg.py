"""Package container of mLSTMTime, through which pytorch-forecasting lists and tests the model."""

from typing import Any

from ..._upstream import BasePtForecaster

__all__ = ["mLSTMTime_pkg"]


class mLSTMTime_pkg(BasePtForecaster):
    """mLSTMTime package container.

    Examples
    --------
    >>> from pytorch_forecasting_mlstm import mLSTMTime_pkg
    >>> mLSTMTime_pkg.name()
    'mLSTMTime'
    """

    _tags = {
        "info:name": "mLSTMTime",
        "info:compute": 2,
        "info:pred_type": ["distr", "point", "quantile"],
        "info:y_type": ["category", "numeric"],
        "authors": ["pytorch_forecasting_mlstm contributors"],
        "python_dependencies": [],
        "capability:exogenous": True,
        "capability:multivariate": True,
        "capability:pred_int": True,
        "capability:flexible_history_length": True,
        "capability:cold_start": True,
    }

    @classmethod
    def get_cls(cls) -> type:
        """Return the model class."""
        from ._mlstm_time import mLSTMTime

        return mLSTMTime

    @classmethod
    def get_base_test_params(cls) -> list[dict[str, Any]]:
        """Return sets of arguments for the conformance suite of pytorch-forecasting."""
        return [
            {},
            {"hidden_size": 8, "num_layers": 2, "num_heads": 2, "patch_length": 3},
            {"data_loader_kwargs": {"min_encoder_length": 2, "min_prediction_length": 2}},
        ]

    @classmethod
    def _get_test_dataloaders_from(cls, params: dict[str, Any]) -> dict[str, Any]:
        """Return the loaders for the conformance suite of pytorch-forecasting."""
        from ._pkg_test_data import make_dataloaders

        return make_dataloaders(params)
