"""`MLSTMForecaster`: `Forecaster` behind the interface of sktime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state
from sktime.forecasting.base import BaseForecaster
from sktime.utils.warnings import warn

from ..forecaster import Forecaster
from ..forecaster.arguments import check_integer, read_quantiles
from ..forecaster.reading import TableReader
from .columns import Columns
from .errors import renamed_arguments
from .forecast import Forecast, forecast_steps
from .observed import Observed
from .quantiles import quantiles_at, unlearned
from .step_counter import StepCounter

__all__ = ["MLSTMForecaster"]

_PANDAS = ["pd.DataFrame", "pd-multiindex", "pd_multiindex_hier"]
_MAX_SEED = 2**32 - 1
_HINT_OF_GAPS = (
    "; evaluate, searches and ForecastX pass X at the steps of fh only: use fh 1, 2, …, n there"
)


class MLSTMForecaster(BaseForecaster):
    """Forecast with mLSTMTime and a linear forecast, in pipelines, searches and tests of sktime.

    All series of a panel or a hierarchy are learned by one
    :class:`~pytorch_forecasting_mlstm.Forecaster`, and so are all columns of y; each is forecast on
    its own. X must be known over the horizon. The forecast is the median.

    Parameters
    ----------
    history : int, optional
        Steps that the model looks back. Default: chosen on held-out rows.
    epochs : int, optional
        Maximum number of epochs. Default: at most 40, as far as they help on held-out rows.
    learning_rate : float, optional
        Learning rate of the first epoch. Default: 0.005, and less for the shortest trainings.
    members : int, default 3
        Number of models whose forecasts are averaged.
    quantiles : sequence of float, default (0.05, 0.25, 0.5, 0.75, 0.95)
        Quantiles to learn; 0.5 is added. The default holds those of ``predict_interval``,
        ``predict_quantiles`` and ``predict_var``. Others that are asked for are interpolated
        between these, or extrapolated, with a warning.
    calendar_effects : bool, default True
        Whether to learn the effects of holidays on daily values, of the days and weekends of a
        month on monthly ones, and of the month of the year on many short series, where all series
        together show them.
    calibrate : bool, default True
        Whether to widen intervals that do not hold on held-out rows.
    minimum : "auto", float or None, default "auto"
        Forecasts are never lower. "auto" is 0 for each column of y that is never negative, and
        contains an exact 0 or consists of whole numbers.
    missing : str or float, default "mask"
        What to do where y is missing: ``"mask"`` hides it from the model; a number, ``"previous"``
        and ``"interpolate"`` fill it in.
    outliers : {"mask", "keep"}, default "mask"
        Whether to hide single values that lie many times the range of their series away from it.
    update_epochs : int, default 5
        Epochs of ``update``, at a fifth of the learning rate.
    model_kwargs : dict, optional
        Arguments of :class:`~pytorch_forecasting_mlstm.mLSTMTime`, such as ``hidden_size``.
    trainer_kwargs : dict, optional
        Arguments of Lightning's ``Trainer``, such as ``accelerator``.
    random_state : int, RandomState or None, default 0
        The seed. Equal numbers give equal models. None and a RandomState draw one in each fit.
    verbose : bool, default False
        Whether to show a progress bar.

    Attributes
    ----------
    forecaster_ : Forecaster
        The fitted forecaster of tables. Its ``save`` writes a file that runs no code when it is
        loaded; sktime's own ``save`` writes a pickle.

    See Also
    --------
    pytorch_forecasting_mlstm.Forecaster : The same forecasts for tables.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from pytorch_forecasting_mlstm.sktime import MLSTMForecaster
    >>> forecaster = MLSTMForecaster(history=24, epochs=1, members=1)
    >>> forecaster.fit(load_airline(), fh=[1, 2, 12])
    MLSTMForecaster(...)
    >>> forecaster.predict().index.astype(str).tolist()
    ['1961-01', '1961-02', '1961-12']
    """

    _tags: ClassVar[dict[str, Any]] = {
        "authors": "pytorch_forecasting_mlstm contributors",
        "maintainers": "pytorch_forecasting_mlstm contributors",
        "y_inner_mtype": _PANDAS,
        "X_inner_mtype": _PANDAS,
        "capability:multivariate": True,
        "capability:exogenous": True,
        "capability:categorical_in_X": True,
        "capability:non_contiguous_X": False,  # the model reads X of all steps of the horizon
        "capability:insample": False,
        "capability:pred_int": True,
        "capability:pred_int:insample": False,
        "capability:missing_values": True,
        "capability:unequal_length": True,
        "capability:update": True,
        "capability:random_state": True,
        "property:randomness": "derandomized",
        "requires-fh-in-fit": True,
        "X-y-must-have-same-index": True,
    }
    # `_observed` has the rows.
    _config: ClassVar[dict[str, Any]] = {"remember_data": False}

    def __init__(
        self,
        history: int | None = None,
        epochs: int | None = None,
        learning_rate: float | None = None,
        members: int = 3,
        quantiles: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95),
        calendar_effects: bool = True,
        calibrate: bool = True,
        minimum: Any = "auto",
        missing: Any = "mask",
        outliers: str = "mask",
        update_epochs: int = 5,
        model_kwargs: Mapping[str, Any] | None = None,
        trainer_kwargs: Mapping[str, Any] | None = None,
        random_state: Any = 0,
        verbose: bool = False,
    ) -> None:
        self.history = history
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.members = members
        self.quantiles = quantiles
        self.calendar_effects = calendar_effects
        self.calibrate = calibrate
        self.minimum = minimum
        self.missing = missing
        self.outliers = outliers
        self.update_epochs = update_epochs
        self.model_kwargs = model_kwargs
        self.trainer_kwargs = trainer_kwargs
        self.random_state = random_state
        self.verbose = verbose
        super().__init__()
        self._y = self._X = None  # sktime keeps them where "remember_data" is turned on

    def _fit(self, y: pd.DataFrame, X: pd.DataFrame | None, fh: Any) -> MLSTMForecaster:
        with renamed_arguments():
            check_integer("update_epochs", self.update_epochs)
            columns = Columns.of(y, X, read_quantiles(self.quantiles))
        observed = Observed.of(y, X, columns)
        minimum, self._lower_bounds = self._minima(observed)
        forecaster = Forecaster(
            horizon=1,  # until the steps of fh can be counted
            time=columns.time,
            target=list(columns.targets) if len(columns.targets) > 1 else columns.targets[0],
            group=list(columns.group) or None,
            known=list(columns.known) or None,
            # sktime counts whole numbers by one, and the steps of a horizon likewise
            frequency=1 if isinstance(self._cutoff[0], int | np.integer) else None,
            missing=self.missing,
            outliers=self.outliers,
            quantiles=self.quantiles,
            history=self.history,
            minimum=minimum,
            calendar_effects=self.calendar_effects,
            calibrate=self.calibrate,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            members=self.members,
            model_kwargs=self.model_kwargs,
            trainer_kwargs=self.trainer_kwargs,
            seed=self._seed(),
            verbose=self.verbose,
        )
        table = observed.table()
        with renamed_arguments():
            self._counter = StepCounter.of(TableReader(forecaster.get_params()).read(table))
            horizon = int(self._counter.steps_to(fh, self._cutoff[0]).max())
            self.forecaster_ = forecaster.set_params(horizon=horizon).fit(table)
        self._observed = observed
        return self

    def _update(
        self, y: pd.DataFrame, X: pd.DataFrame | None = None, update_params: bool = True
    ) -> MLSTMForecaster:
        observed = self._observed.extend(y, X)
        if update_params:
            with renamed_arguments():
                self.forecaster_.update(observed.table_at(y.index), epochs=self.update_epochs)
            self._lower_bounds = np.minimum(self._lower_bounds, self._minima(observed)[1])
        self._observed = observed
        return self

    def _predict(self, fh: Any, X: pd.DataFrame | None = None) -> pd.DataFrame:
        forecast = self._forecast(fh, X)
        median = np.maximum(forecast.median, self._lower_bounds)
        return forecast.frame(median, self._observed.columns.y_labels)

    def _predict_quantiles(
        self, fh: Any, X: pd.DataFrame | None, alpha: Sequence[float]
    ) -> pd.DataFrame:
        forecast = self._forecast(fh, X)
        parts = [
            quantiles_at(alpha, values, forecast.levels, max(bound, self.forecaster_.minimum_))
            for values, bound in zip(forecast.quantiles, self._lower_bounds, strict=True)
        ]
        guessed = unlearned(alpha, forecast.levels)
        if guessed:
            warn(
                f"MLSTMForecaster: the quantiles at {_listed(guessed)} were not learned, and are "
                f"guessed from those at {_listed(forecast.levels)}: name them in quantiles and fit "
                "anew",
                category=UserWarning,
                obj=self,
            )
        names = pd.MultiIndex.from_product([self._get_varnames(), alpha])
        return forecast.frame(np.concatenate(parts, axis=1), names)

    def _forecast(self, fh: Any, X: pd.DataFrame | None) -> Forecast:
        observed = self._observed if X is None else self._observed.plan(X)
        offsets = observed.offsets(fh, self._counter)
        has_gaps = len(fh) < self.forecaster_.horizon
        with renamed_arguments(_HINT_OF_GAPS if has_gaps else ""):
            return forecast_steps(self.forecaster_, observed, offsets)

    def _minima(self, observed: Observed) -> tuple[Any, np.ndarray]:
        """Return `minimum` for the forecaster of tables, and the bound of each target, (targets,).

        That forecaster has one bound for all targets. It gets none if theirs differ.
        """
        targets = len(observed.columns.targets)
        if targets == 1 or not isinstance(self.minimum, str) or self.minimum != "auto":
            return self.minimum, np.full(targets, -np.inf)
        bounds = observed.lower_bounds()
        return ("auto" if len(np.unique(bounds)) == 1 else None), bounds

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(_MAX_SEED, dtype=np.uint32))

    def _get_fitted_params(self) -> dict[str, Any]:
        forecaster = self.forecaster_
        return {
            "forecaster": forecaster,
            "history": forecaster.history_,
            "epochs": forecaster.epochs_,
        }

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Return parameters of forecasters that are fitted quickly, for the tests of sktime.

        Parameters
        ----------
        parameter_set : str, default "default"
            There is one set.

        Returns
        -------
        list of dict
            Parameters of two forecasters.
        """
        tiny: dict[str, Any] = {
            "history": 4,
            "epochs": 1,
            "members": 1,
            "update_epochs": 1,
            "model_kwargs": {"hidden_size": 4, "num_heads": 1},
            "trainer_kwargs": {"limit_train_batches": 1, "limit_val_batches": 1},
        }
        return [tiny, {**tiny, "quantiles": (0.1, 0.9), "calibrate": False, "minimum": None}]


def _listed(levels: Sequence[float]) -> str:
    return ", ".join(f"{level:g}" for level in levels)
