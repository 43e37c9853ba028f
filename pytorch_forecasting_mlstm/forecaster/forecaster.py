"""`Forecaster`: from a table to a forecast."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from pytorch_forecasting import TimeSeriesDataSet
from sklearn.base import BaseEstimator

from ..models import mLSTMTime
from .arguments import check_flag, check_integer, check_minutes, read_path, settings_of
from .errors import Argument, InputError, NotFittedInputError
from .evaluation.backtest_result import BacktestResult
from .evaluation.backtesting import backtest_panel, choose_cutoffs, history_frame
from .evaluation.tested_fit import choose_test_cutoffs, fit_and_test
from .panel.forecast_frame import forecast_frame
from .panel.panel import Panel
from .plots.forecast_plot import plot_forecast
from .reading import TableReader
from .saving import load_state, save_state
from .state import State
from .tables.to_pandas import to_pandas
from .training.calendar_effects.choice import effects_table
from .training.fitted import Fitted, Interrupted
from .training.fitting import Settings, fit_panel
from .training.forecasting import forecast_panel
from .training.history import check_history
from .training.progress import ProgressBar
from .training.splits import split_panel
from .training.tuning import best_choice, open_study, parameters_of, search
from .training.updating import UPDATE_EPOCHS, update_fit

__all__ = ["Forecaster"]


class Forecaster(BaseEstimator):
    """Forecast tables: one series or many, with what is known of the future and of the past.

    ``fit`` chooses what is not given: the length of the history and the number of epochs are those
    that forecast the last rows of the table best, which are then learned, too. The intervals are
    calibrated on these rows. Training starts at a linear forecast, an average of ridge regressions.
    The forecast is the mean of several models, mixed with the linear one as far as it helps.

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
        Steps that the model looks back. Its linear maps read all of them, and its memory as many of
        the last ones as are best on held-out rows. Default: chosen there, too.
    minimum : "auto", float or None, default "auto"
        Forecasts are never lower. "auto" is 0 if the target is never negative, and contains an
        exact 0 or consists of whole numbers.
    calendar_effects : bool, default True
        Whether to learn the effects of holidays on daily values, of the days and weekends of a
        month on monthly ones, and of the month of the year on many short series, where all series
        together show them.
    calibrate : bool, default True
        Whether to widen intervals that do not hold on held-out rows.
    epochs : int, optional
        Maximum number of epochs. Default: that of the recipe, 40. Shorter trainings come first, and
        longer ones only as long as they forecast the held-out rows better.
    learning_rate : float, optional
        Learning rate of the first epoch. Default: 0.005, and less for the shortest trainings.
    members : int, default 3
        Number of models, which differ by their seed, and whose forecasts are averaged.
    model_kwargs : dict, optional
        Arguments of :class:`~pytorch_forecasting_mlstm.mLSTMTime`, such as ``hidden_size``.
    trainer_kwargs : dict, optional
        Arguments of Lightning's ``Trainer``, such as ``accelerator``, for each training. Loggers
        and callbacks follow those that compare numbers of epochs, with the history that is the best
        so far, one after the other.
    seed : int, default 0
        Equal seeds give equal models. Global random states stay as they are.
    verbose : bool, default True
        Whether to show a progress bar.

    Attributes
    ----------
    models : list of mLSTMTime
        The fitted models of pytorch-forecasting, whose quantiles ``predict`` averages.
    model : mLSTMTime
        The first of them.
    dataset : TimeSeriesDataSet
        The dataset that they were fitted to.
    history_ : int
        Steps that the models look back.
    epochs_ : int
        Epochs that each of the models was trained for.
    minimum_ : float
        The lowest value that a forecast can have; minus infinity if there is none.
    calendar_effects_ : pandas.DataFrame
        The effects of the calendar in words, the relative change that each makes, and the number of
        series that have it.
    backtest_ : BacktestResult or None
        The test of ``fit(table, cutoffs=...)``. It is not saved.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> days = pd.date_range("2024-01-01", periods=100)
    >>> table = pd.DataFrame({"date": days, "sales": 10 + days.dayofweek + np.arange(100) / 50})
    >>> forecaster = Forecaster(
    ...     horizon=7, time="date", target="sales", history=14, epochs=1, members=1, verbose=False
    ... )
    >>> forecaster.fit(table).predict().columns.tolist()
    ['date', 'prediction', 'q0.1', 'q0.5', 'q0.9']
    """

    #: The history that the last search has set, and its file; None if the history was given.
    _searched: tuple[int | None, Path | None] | None = None

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
        calendar_effects: bool = True,
        calibrate: bool = True,
        epochs: int | None = None,
        learning_rate: float | None = None,
        members: int = 3,
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
        self.calendar_effects = calendar_effects
        self.calibrate = calibrate
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.members = members
        self.model_kwargs = model_kwargs
        self.trainer_kwargs = trainer_kwargs
        self.seed = seed
        self.verbose = verbose

    @property
    def model(self) -> mLSTMTime:
        """The first of the fitted models of pytorch-forecasting."""
        return self._fitted_state("model").fitted.models[0]

    @property
    def models(self) -> list[mLSTMTime]:
        """The fitted models of pytorch-forecasting, whose quantiles ``predict`` averages."""
        return list(self._fitted_state("models").fitted.models)

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
        """Epochs that each of the models was trained for."""
        return self._fitted_state("epochs_").fitted.epochs

    @property
    def minimum_(self) -> float:
        """The lowest value that a forecast can have; minus infinity if there is none."""
        return self._fitted_state("minimum_").fitted.lower_bound

    @property
    def calendar_effects_(self) -> pd.DataFrame:
        """The effects of the calendar, the change that each makes, and the number of series."""
        return effects_table(self._fitted_state("calendar_effects_").fitted.scaling.effects)

    def check(self, table: Any, future: Any = None) -> Forecaster:
        """Check all that ``fit`` and ``predict`` need, in seconds, before a long training.

        Parameters
        ----------
        table, future : table
            As for ``fit`` and ``predict``.

        Returns
        -------
        Forecaster
            Itself, as it was.

        Raises
        ------
        InputError
            If an argument or a table cannot be used.
        """
        read = self._reader.read(table)
        if read.faults is not None:
            warnings.warn(read.faults, UserWarning, stacklevel=2)
        split = split_panel(read.panel, int(self.horizon))
        if self.history is not None:
            check_history(int(self.history), split)
        self._reader.panel_ahead(read.records, read.roles, read.axis, future, int(self.horizon))
        return self

    def fit(self, table: Any, cutoffs: Any = None) -> Forecaster:
        """Fit models to a table.

        It compares lengths of the history and numbers of epochs on the last rows, chooses how much
        of a linear forecast to mix in, calibrates the intervals on these rows, and trains
        `members` models on all of them.

        Parameters
        ----------
        table : pandas.DataFrame, polars.DataFrame, pyarrow.Table or another table
            One row per series and time, in any order, with the columns that were named.
        cutoffs : int or "auto", optional
            Number of times, one horizon apart, to forecast the last rows from, as a test whose
            result is ``backtest_``. It needs no further training: history, epochs and calibration
            are chosen on the rows before these, which therefore have to be long enough, and the
            models are trained on all rows as without a test. "auto" tests a tenth of the typical
            series, or nothing if the table is too short. Default: no test.

        Returns
        -------
        Forecaster
            Itself.

        Raises
        ------
        InputError
            If an argument or the table cannot be used.
        KeyboardInterrupt
            After Ctrl-C. Once every length that is tried has had a training (or, if only one is
            tried, an epoch), the best model so far is kept, and the forecaster can be used.

        Warns
        -----
        UserWarning
            Of rows that look like faults.
        """
        if cutoffs is not None and cutoffs != "auto":
            check_integer("cutoffs", cutoffs)
        read = self._reader.read(table)
        if read.faults is not None:
            warnings.warn(read.faults, UserWarning, stacklevel=2)
        positions = []
        if cutoffs is not None:
            positions = choose_test_cutoffs(read.panel, int(self.horizon), cutoffs)

        def state(fitted: Fitted, groups: pd.DataFrame) -> State:
            return State(
                roles=read.roles,
                records=read.records,
                axis=read.axis,
                groups=groups,
                kind=read.kind,
                fitted=fitted,
                levels=read.levels,
            )

        report = None
        try:
            with ProgressBar() as bar:
                if positions:
                    fitted, report = fit_and_test(
                        read.given,
                        self._reader.clean,
                        self._settings(read.levels),
                        positions,
                        bar if self.verbose else None,
                    )
                else:
                    fitted = self._fit_panel(read.panel, read.levels, bar)
        except Interrupted as interruption:
            self._state = state(interruption.fitted, interruption.groups)
            self.backtest_ = None
            raise KeyboardInterrupt from None
        self._state = state(fitted, read.panel.groups)
        self.backtest_ = report
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
        longest = int(state.fitted.dataset.max_prediction_length)
        if state.roles.past and steps > longest:
            raise InputError(
                Argument("horizon"),
                f" must be at most {longest}, that of the fit, since the ",
                Argument("past"),
                f" columns are not known later, got {steps}: fit with it, or leave them out",
            )
        records, kind = state.records, state.kind
        if table is not None:
            records, kind = self._reader.read_like(table, records, state.roles)
        panel = self._reader.panel_ahead(records, state.roles, state.axis, future, steps)
        quantiles = forecast_panel(state.fitted, state.groups, state.levels, panel, steps)
        forecast = forecast_frame(panel, quantiles, state.levels)
        return kind.restore(forecast)

    def backtest(
        self,
        table: Any,
        cutoffs: int = 1,
        step: int | None = None,
        refit: bool = False,
        baselines: bool = True,
    ) -> BacktestResult:
        """Forecast the last parts of a table from what was known before, and compare.

        Models are fitted with the settings of this forecaster, which stays as it is.

        Parameters
        ----------
        table : table
            As for ``fit``.
        cutoffs : int, default 1
            Number of times to forecast from. The last one is `horizon` steps before the end.
        step : int, optional
            Steps between them. Default: `horizon`.
        refit : bool, default False
            Whether to fit a model at each cutoff, which takes as many times as long, or one before
            the first.
        baselines : bool, default True
            Whether to compare with the seasonal naive forecast, and with AutoETS where
            statsforecast is installed, which takes up to 5 s for each series and cutoff.

        Returns
        -------
        BacktestResult
            ``forecasts`` beside the truth, tables of ``errors`` beside those of the baselines, and
            ``plot``.

        Raises
        ------
        InputError
            If an argument or the table cannot be used, or the table is too short.
        """
        count = check_integer("cutoffs", cutoffs)
        distance = None if step is None else check_integer("step", step)
        check_flag("refit", refit)
        check_flag("baselines", baselines)
        read = self._reader.read(table)
        if read.faults is not None:
            warnings.warn(read.faults, UserWarning, stacklevel=2)
        positions = choose_cutoffs(
            read.panel, int(self.horizon), count, distance or int(self.horizon)
        )
        with ProgressBar() as bar:
            return backtest_panel(
                read.given,
                self._reader.clean,
                positions,
                int(self.horizon),
                read.levels,
                lambda panel: self._fit_panel(panel, read.levels, bar),
                refit=bool(refit),
                baselines=bool(baselines),
            )

    def update(self, table: Any, epochs: int = UPDATE_EPOCHS) -> Forecaster:
        """Go on training the models with new rows, or new series.

        This takes a fraction of the time of a new fit. Encoders, scales of known series, the length
        of the history, the linear forecast and the calibration stay as they were: fit anew after a
        change of the data.

        Parameters
        ----------
        table : table
            New rows; earlier ones may be repeated. They replace those of the same series and time.
        epochs : int, default 5
            Epochs of the training, at a fifth of the learning rate.

        Returns
        -------
        Forecaster
            Itself.

        Raises
        ------
        InputError
            If the table cannot be used.
        KeyboardInterrupt
            After Ctrl-C; the forecaster is then as it was.
        """
        state = self._fitted_state("update")
        check_integer("epochs", epochs)
        new, kind = self._reader.read_like(table, state.records, state.roles)
        records = state.records.extend(new, replace=True)
        panel = self._reader.panel(records, state.roles, state.axis)
        settings = self._settings(state.levels)
        with ProgressBar() as bar:
            fitted, groups = update_fit(
                state.fitted, state.groups, panel, settings, epochs, bar if self.verbose else None
            )
        self._state = replace(state, records=records, groups=groups, kind=kind, fitted=fitted)
        return self

    def tune(
        self,
        table: Any,
        trials: int = 20,
        minutes: float | None = None,
        storage: Any = None,
    ) -> Forecaster:
        """Search settings with Optuna, and set the best; call ``fit`` afterwards.

        It searches the history, ``hidden_size``, ``num_layers``, ``dropout``, ``weight_decay`` and
        the learning rate. Each trial trains on all but the last rows and is measured on these;
        bad ones are stopped early. The first trial has the settings of this forecaster; a given
        ``history`` stays. The memory of a trial reads the whole history, unless ``model_kwargs``
        has a ``memory_length``.

        Parameters
        ----------
        table : table
            As for ``fit``.
        trials : int, default 20
            Trials in all, those in `storage` included. With a given ``history``, those of others do
            not count, nor can they be the best.
        minutes : float, optional
            Start no trial after this time.
        storage : str or Path, optional
            File that keeps the trials: a search that was stopped goes on from there.

        Returns
        -------
        Forecaster
            Itself, with ``history``, ``learning_rate`` and ``model_kwargs`` set. ``study_`` is
            Optuna's study.

        Raises
        ------
        InputError
            If Optuna is not installed, or an argument, the table or the file cannot be used.
        KeyboardInterrupt
            After Ctrl-C; the best settings so far are then set.
        """
        check_integer("trials", trials)
        check_minutes(minutes)
        read = self._reader.read(table)
        settings = self._settings(read.levels)
        path = None if storage is None else read_path("storage", storage)
        if path is not None and self._searched == (self.history, path):
            settings = replace(settings, history=None)  # the search itself has set it
        study = open_study(read.panel, settings, path)
        try:
            search(
                study,
                read.panel,
                settings,
                trials=int(trials),
                minutes=minutes,
                verbose=self.verbose,
            )
        finally:
            best = best_choice(study, settings)
            if best is not None:
                self.study_ = study
                self.set_params(**parameters_of(best, self.model_kwargs))
                self._searched = None if settings.history else (self.history, path)
        return self

    def save(self, path: Any) -> None:
        """Save the fitted forecaster in one file, which runs no code when it is loaded.

        The file is also a checkpoint of the first model, for ``mLSTMTime.load_from_checkpoint``.

        Parameters
        ----------
        path : str or Path
            The file. An old one is replaced once the new one is complete.

        Raises
        ------
        InputError
            If the file cannot be written.

        Warns
        -----
        UserWarning
            Of parameters that are no plain data, such as callbacks, and are left out.
        """
        save_state(read_path("path", path), self.get_params(), self._fitted_state("save"))

    @classmethod
    def load(cls, path: Any) -> Forecaster:
        """Load a forecaster that ``save`` has written.

        Parameters
        ----------
        path : str or Path
            The file.

        Raises
        ------
        InputError
            If there is no such file, or it is damaged or of another kind.
        """
        parameters, state = load_state(read_path("path", path))
        forecaster = cls(**parameters)
        forecaster._state = state
        return forecaster

    def plot(self, forecast: Any = None, actual: Any = None, series: Any = None) -> Any:
        """Draw the history, the forecast and its intervals.

        Parameters
        ----------
        forecast : table, optional
            From ``predict``. Default: the forecast of the fitted table.
        actual : table, optional
            Rows with the truth over the horizon, to draw it.
        series : optional
            Series to draw: a value of the group column, or a tuple of values of several, or a list
            of these. With several targets, the name of the target is the last value of the tuple,
            such as ``("north", "sales")``. Default: the first six.

        Returns
        -------
        matplotlib.figure.Figure
            Save it with ``savefig``.

        Raises
        ------
        InputError
            If matplotlib is not installed, or there is no such series.
        """
        state = self._fitted_state("plot")
        forecast = self.predict() if forecast is None else forecast
        frame, _ = to_pandas(forecast, "forecast")
        truth = None if actual is None else to_pandas(actual, "actual")[0]
        panel = self._reader.panel(state.records, state.roles, state.axis)
        return plot_forecast(
            history_frame(panel),
            frame,
            time=state.roles.time,
            target=state.roles.target,
            group=state.roles.group,
            actual=truth,
            series=series,
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_state")

    @property
    def _reader(self) -> TableReader:
        return TableReader(self.get_params())

    def _settings(self, levels: tuple[float, ...]) -> Settings:
        return settings_of(self.get_params(), levels)

    def _fit_panel(self, panel: Panel, levels: tuple[float, ...], bar: ProgressBar) -> Fitted:
        return fit_panel(panel, self._settings(levels), bar if self.verbose else None)

    def _fitted_state(self, caller: str) -> State:
        state: State | None = getattr(self, "_state", None)
        if state is None:
            raise NotFittedInputError(
                f"{type(self).__name__}.{caller}: the forecaster is not fitted: call fit first"
            )
        return state
