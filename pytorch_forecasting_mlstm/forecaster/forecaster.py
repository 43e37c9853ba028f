"""`Forecaster`: from a table to a forecast."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from pytorch_forecasting import TimeSeriesDataSet
from sklearn.base import BaseEstimator

from ..models import mLSTMTime
from .arguments import check_arguments, check_integer, read_quantiles
from .errors import InputError
from .fitting import Interrupted, Settings, fit_panel
from .forecast_frame import forecast_frame
from .frequency import infer_frequency
from .labels import label_series
from .progress import ProgressBar
from .recipe import Recipe
from .records import check_known_ahead, read_records
from .roles import read_roles
from .state import State, forecast_panel, panel_of
from .suspicious import describe_all
from .tables import to_pandas
from .windows import check_future

__all__ = ["Forecaster"]


class Forecaster(BaseEstimator):
    """Forecast tables: one series or many, with what is known of the future and of the past.

    ``fit`` chooses what is not given: the length of the history and the number of epochs are those
    that forecast the last rows of the table best, which are then learned, too. The intervals are
    calibrated on these rows.

    Parameters
    ----------
    horizon : int
        Steps to forecast.
    time : str
        Column of the times: dates, times with or without a zone, months, quarters or weeks as text,
        or whole numbers. What comes in comes back in the same form.
    target : str or list of str
        Column or columns to forecast. Each is forecast on its own.
    group : str or list of str, optional
        Columns that tell the series apart. Default: the table is a single series.
    known : str or list of str, optional
        Columns whose future is known, such as prices and promotions. Numbers, or classes as text.
    past : str or list of str, optional
        Columns that are known up to the present only, such as the weather.
    static : str or list of str, optional
        Columns that do not change within a series, such as the type of a store.
    frequency : str or int, optional
        The spacing, as an alias of pandas, such as ``"D"``, ``"B"`` (business days) or ``"MS"``.
        Default: inferred.
    holidays : list of dates or str, optional
        Days that the series skip, such as the holidays of an exchange, or the code of a country,
        such as ``"US"``, which requires the package ``holidays``.
    timezone : str, optional
        Zone of local times without one, such as ``"Europe/Berlin"``.
    missing : str or float, default "mask"
        What to do where the target is missing, or a step has no row: ``"mask"`` hides it from the
        model; a number, ``"previous"`` and ``"interpolate"`` fill it in.
    outliers : {"mask", "keep"}, default "mask"
        Whether to hide single values that lie many times the range of their series away from it.
    quantiles : sequence of float, default (0.1, 0.5, 0.9)
        Quantiles to forecast; 0.5 is added.
    history : int, optional
        Steps that the model looks back. Default: chosen on held-out rows.
    minimum : "auto", float or None, default "auto"
        Forecasts are never lower. "auto" is 0 if the target is never negative, and contains an
        exact 0 or consists of whole numbers.
    calibrate : bool, default True
        Whether to shift the quantiles so that they hold on held-out rows.
    epochs : int, optional
        Maximum number of epochs. Default: that of the recipe, 40.
    learning_rate : float, optional
        Learning rate of the first epoch. Default: 0.005.
    model_kwargs : dict, optional
        Arguments of :class:`~pytorch_forecasting_mlstm.mLSTMTime`, such as ``hidden_size``.
    trainer_kwargs : dict, optional
        Arguments of Lightning's ``Trainer``, such as ``accelerator``. Loggers and callbacks follow
        the training that validates.
    seed : int, default 0
        Equal seeds give equal models. Global random states stay as they are.
    verbose : bool, default True
        Whether to show a progress bar.

    Attributes
    ----------
    model : mLSTMTime
        The fitted model of pytorch-forecasting.
    dataset : TimeSeriesDataSet
        The dataset that it was fitted to.
    history_ : int
        Steps that the model looks back.
    epochs_ : int
        Epochs of the training.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> days = pd.date_range("2024-01-01", periods=200)
    >>> table = pd.DataFrame({"date": days, "sales": 10 + days.dayofweek + np.arange(200) / 100})
    >>> forecaster = Forecaster(horizon=7, time="date", target="sales", epochs=2, verbose=False)
    >>> forecaster.fit(table).predict().columns.tolist()
    ['date', 'prediction', 'q0.1', 'q0.5', 'q0.9']
    """

    def __init__(
        self,
        horizon: int,
        *,
        time: str,
        target: str | Sequence[str],
        group: str | Sequence[str] | None = None,
        known: str | Sequence[str] | None = None,
        past: str | Sequence[str] | None = None,
        static: str | Sequence[str] | None = None,
        frequency: Any = None,
        holidays: Any = None,
        timezone: str | None = None,
        missing: Any = "mask",
        outliers: str = "mask",
        quantiles: Sequence[float] = (0.1, 0.5, 0.9),
        history: int | None = None,
        minimum: Any = "auto",
        calibrate: bool = True,
        epochs: int | None = None,
        learning_rate: float | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        trainer_kwargs: Mapping[str, Any] | None = None,
        seed: int = 0,
        verbose: bool = True,
    ) -> None:
        self.horizon = horizon
        self.time = time
        self.target = target
        self.group = group
        self.known = known
        self.past = past
        self.static = static
        self.frequency = frequency
        self.holidays = holidays
        self.timezone = timezone
        self.missing = missing
        self.outliers = outliers
        self.quantiles = quantiles
        self.history = history
        self.minimum = minimum
        self.calibrate = calibrate
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.model_kwargs = model_kwargs
        self.trainer_kwargs = trainer_kwargs
        self.seed = seed
        self.verbose = verbose

    @property
    def model(self) -> mLSTMTime:
        """The fitted model of pytorch-forecasting."""
        return self._fitted_state("model").fitted.model

    @property
    def dataset(self) -> TimeSeriesDataSet:
        """The dataset that the model was fitted to."""
        return self._fitted_state("dataset").fitted.dataset

    @property
    def history_(self) -> int:
        """Steps that the model looks back."""
        return self._fitted_state("history_").fitted.history

    @property
    def epochs_(self) -> int:
        """Epochs of the training."""
        return self._fitted_state("epochs_").fitted.epochs

    def fit(self, table: Any) -> Forecaster:
        """Fit the model to a table.

        Parameters
        ----------
        table : pandas.DataFrame, polars.DataFrame, pyarrow.Table or another table
            One row per series and time, in any order, with the columns that were named.

        Returns
        -------
        Forecaster
            Itself.

        Raises
        ------
        InputError
            If an argument or the table cannot be used.
        KeyboardInterrupt
            After Ctrl-C. If the main training has completed an epoch, its best model is kept, and
            the forecaster can be used.

        Warns
        -----
        UserWarning
            Of rows that look like faults.
        """
        parameters = self.get_params()
        check_arguments(parameters)
        levels = read_quantiles(self.quantiles)
        roles = read_roles(
            time=self.time,
            target=self.target,
            group=self.group,
            known=self.known,
            past=self.past,
            static=self.static,
            quantiles=levels,
        )
        frame, kind = to_pandas(table)
        records = read_records(frame, roles, timezone=self.timezone)
        axis, _ = infer_frequency(
            records.times,
            records.series,
            lambda number: label_series(records.groups, number),
            frequency=self.frequency,
            holidays=self.holidays,
        )
        panel, suspicions = panel_of(
            records,
            roles,
            axis,
            missing=self.missing,
            outliers=self.outliers,
            horizon=int(self.horizon),
        )
        if suspicions:
            warnings.warn(describe_all(suspicions, panel, self.outliers), UserWarning, stacklevel=2)

        def state(fitted: Any) -> State:
            return State(roles, records, axis, panel.groups, kind, fitted, levels)

        try:
            with ProgressBar() as bar:
                fitted = fit_panel(panel, self._settings(levels), bar if self.verbose else None)
        except Interrupted as interruption:
            self._state = state(interruption.fitted)
            raise KeyboardInterrupt from None
        self._state = state(fitted)
        return self

    def predict(self, table: Any = None, future: Any = None, horizon: int | None = None) -> Any:
        """Forecast the steps after the last observed target of every series.

        Parameters
        ----------
        table : table, optional
            Rows to forecast from, such as newer ones. New series are forecast, too. Default: the
            fitted table.
        future : table, optional
            The group columns, the time and the ``known`` columns of the steps to forecast. Not
            needed if `table` holds these rows, without a target.
        horizon : int, optional
            Steps to forecast. Default: that of the forecaster. For more steps, forecasts are fed
            back, which is not possible with ``past`` covariates.

        Returns
        -------
        table
            Of the kind that came in: the group columns, the time, ``target`` if there are several,
            ``prediction``, which is the median, and the quantiles, such as ``q0.1``.

        Raises
        ------
        InputError
            If a table cannot be used.
        """
        state = self._fitted_state("predict")
        steps = check_integer("horizon", self.horizon if horizon is None else horizon)
        records, kind = state.records, state.kind
        if table is not None:
            frame, kind = to_pandas(table)
            records = read_records(
                frame, state.roles, timezone=self.timezone, like=state.records
            )
        check_known_ahead(records, state.roles, "table")
        if future is not None:
            frame, _ = to_pandas(future, "future")
            plan = read_records(
                frame,
                state.roles,
                timezone=self.timezone,
                like=state.records,
                source="future",
                future=True,
            )
            records = records.extend(plan, replace=False)
        panel, _ = panel_of(
            records,
            state.roles,
            state.axis,
            missing=self.missing,
            outliers=self.outliers,
            horizon=int(self.horizon),
        )
        check_future(panel, steps, "table" if future is None else "future")
        quantiles = forecast_panel(state.fitted, state.groups, state.levels, panel, steps)
        forecast = forecast_frame(panel, quantiles, state.levels, records.time_format)
        return kind.restore(forecast)

    def _settings(self, levels: tuple[float, ...]) -> Settings:
        recipe: dict[str, Any] = {"model": dict(self.model_kwargs or {})}
        if self.epochs is not None:
            recipe["epochs"] = int(self.epochs)
        if self.learning_rate is not None:
            recipe["learning_rate"] = float(self.learning_rate)
        return Settings(
            horizon=int(self.horizon),
            quantiles=levels,
            history=None if self.history is None else int(self.history),
            minimum=self.minimum,
            calibrate=self.calibrate,
            recipe=Recipe(**recipe),
            seed=int(self.seed),
            trainer_kwargs=dict(self.trainer_kwargs or {}),
        )

    def _fitted_state(self, caller: str) -> State:
        state: State | None = getattr(self, "_state", None)
        if state is None:
            raise InputError(
                f"{type(self).__name__}.{caller}: the forecaster is not fitted: call fit first"
            )
        return state
