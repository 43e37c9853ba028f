"""mLSTMTime: direct multi-horizon forecasts by linear maps and a matrix memory."""

from typing import Any

from pytorch_forecasting.metrics import MAE, MultiLoss
from pytorch_forecasting.utils import to_list

from ..._validation import check_bool
from ..base.base_model import ForecastingModel
from ..base.checks.dataset import check_batch
from ..base.losses.factory import clone_logging_metrics, clone_loss
from . import adapter
from ._network import TargetForecast, mLSTMTimeNetwork
from .defaults import (
    SIZED_HPARAMS,
    check_sizes,
    default_random_sign_flip,
    resolve_amplitudes,
    resolve_memory_length,
    resolve_moving_averages,
    resolve_patch_length,
)
from .interpretation import Interpretation, check_arguments, interpret
from .interpretation_plot import plot_interpretation
from .sign_flip import check_flip_supported, find_asymmetric_metric, sample_flip_mask
from .submodules import Features

__all__ = ["mLSTMTime"]


class mLSTMTime(ForecastingModel):
    r"""Forecast with linear maps and an mLSTM memory that scales and corrects them.

    A direct multi-horizon model in the style of xLSTMTime [1]_::

        ŷ = rescale( a₁ linear(trend) + a₂ linear(cycle) + a₃ linear(season) + b )
        b = head(memory)      a = 1 + tanh(head'(memory)), with covariates 1

    1. Every sample is scaled to mean 0 and standard deviation 1 over the valid steps of its own
       history that the memory reads.
    2. The history is split into trend (a long moving average), cycle (the excess of a short one)
       and season (the rest). One matrix maps each of these components to the horizon.
    3. In parallel, everything known at each step of the history, and its position, is folded into
       patches and read by stacked mLSTM cells [2]_. The same cells go on over the horizon, where
       they read the known future and the position. Two heads read from them the residual b of
       every step, and the amplitudes a of the components in every patch.
    4. The sum is scaled back to the data by ``transform_output``.

    With ``random_sign_flip``, each training sample is negated with probability 0.5 and its forecast
    negated back.

    Padding is masked exactly: the forecast of a sample depends on that sample alone. History and
    horizon may be shorter than in the dataset of the model; a history may be empty.

    Build it with :meth:`from_dataset`, which sets what follows from the data.

    Parameters
    ----------
    hidden_size : int, default 64
        Width of tokens and hidden states, H. A multiple of ``num_heads``.
    num_layers : int, default 1
        Number of stacked mLSTM cells.
    num_heads : int, default 4
        Number of heads NH, each with a matrix memory of (H / NH)².
    dropout : float, default 0.1
        Probability of dropout on inputs and hidden states of the cells.
    patch_length : int, optional
        Steps folded into one token. Default: from 1, for a memory of less than 64 steps, to 16.
    moving_averages : tuple of int, optional
        Steps averaged for the trend, and for trend plus cycle; the latter at most as many. Default:
        a third of the history, and a seventh of that, made odd (171 and 25 for 512 steps), but at
        least 5 and 3.
    amplitudes : bool, optional
        Whether the memory scales the components. Default: True without covariates: with them,
        amplitudes would memorize the training data.
    instance_normalization : bool, default True
        Whether every sample is scaled by its own history, or all as the dataset scales them.
    random_sign_flip : bool, optional
        Whether to negate training samples at random, to keep the memory from memorizing the drift
        of the training data; set it to False if series have a direction. This requires that the
        model reads nothing but the history of the targets, and that the loss treats both signs
        alike: MAE, MASE, RMSE of a target without transformation, weighted sums of these, and
        losses of ``torch.nn``. Default: True if that is so and ``memory_length`` is at least 64.
    memory_length : int, optional
        Steps at the end of the history that the memory reads, and that scale a sample; the linear
        maps read all. Default: the whole history.
    max_encoder_length, max_prediction_length : int
        Longest history and horizon.
    target : str or list of str
        Name of the target or targets.
    output_size : int or list of int
        Numbers per step that the loss expects, for each target.
    static_categoricals, static_reals : list of str
        Names of the variables that do not change with time.
    time_varying_categoricals_encoder, time_varying_reals_encoder : list of str
        Names of the variables known in the history.
    time_varying_categoricals_decoder, time_varying_reals_decoder : list of str
        Names of the variables known in the horizon.
    x_reals, x_categoricals : list of str
        Names of the columns of a batch.
    embedding_sizes : dict of str to tuple of int
        Number of classes and width of the embedding of each categorical variable.
    embedding_labels : dict of str to list of str
        Classes of each categorical variable.
    embedding_paddings : list of str
        Categorical variables whose class 0 is embedded as zeros.
    categorical_groups : dict of str to list of str
        Categorical variables that share an embedding.
    missing_values : list of str
        Targets and real variables that are missing (NaN) in the training data: the network reads
        marks of where. Others may be missing in the history only, without a mark.
    loss : Metric or nn.Module, optional
        Loss of pytorch-forecasting: any point, quantile or distribution loss, or ``MultiLoss``; or
        ``nn.HuberLoss``, ``nn.L1Loss``, ``nn.MSELoss`` or ``nn.SmoothL1Loss``. The model works on a
        copy. Default: MAE; in :meth:`from_dataset` CrossEntropy for a categorical
        target, and MultiLoss for several targets.
    logging_metrics : list of Metric, optional
        Metrics of the point forecast to log in training and validation, also copied. Default: none.
    **kwargs
        Arguments of :class:`pytorch_forecasting.models.base.BaseModel`: ``learning_rate``,
        ``optimizer``, ``weight_decay``, ``log_interval``, ``reduce_on_plateau_patience`` and so on.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range, if ``random_sign_flip`` is True but
        not supported, or if a batch is longer than the model was made for.

    Attributes
    ----------
    network : mLSTMTimeNetwork
        The network, a plain ``torch.nn.Module`` from tensors to tensors, for example to export.

    References
    ----------
    .. [1] M. Alharthi and A. Mahmood, "xLSTMTime: Long-term Time Series Forecasting with xLSTM",
       arXiv:2407.10240.
    .. [2] M. Beck et al., "xLSTM: Extended Long Short-Term Memory", arXiv:2405.04517.

    Examples
    --------
    >>> from pytorch_forecasting import TimeSeriesDataSet
    >>> from pytorch_forecasting_mlstm import mLSTMTime
    >>> from pytorch_forecasting.data.examples import generate_ar_data
    >>> data = generate_ar_data(seasonality=10.0, timesteps=100, n_series=2, seed=42)
    >>> dataset = TimeSeriesDataSet(
    ...     data, time_idx="time_idx", target="value", group_ids=["series"],
    ...     max_encoder_length=30, max_prediction_length=5, time_varying_unknown_reals=["value"],
    ... )
    >>> model = mLSTMTime.from_dataset(dataset)  # and train it
    >>> x, y = next(iter(dataset.to_dataloader(batch_size=4)))
    >>> model(x).prediction.shape
    torch.Size([4, 5, 1])

    Forecast the steps after the end of a table:

    >>> forecast = model.forecast(data.groupby("series").tail(30))
    >>> forecast[["series", "time_idx", "step"]].head(2)
       series  time_idx  step
    0       0       100     1
    1       0       101     2
    >>> bool(forecast["prediction"].between(-5, 5).all())
    True
    """

    sized_hparams = SIZED_HPARAMS

    def __init__(
        self,
        hidden_size: int = 64,
        num_layers: int = 1,
        num_heads: int = 4,
        dropout: float = 0.1,
        patch_length: int | None = None,
        moving_averages: tuple[int, int] | None = None,
        amplitudes: bool | None = None,
        instance_normalization: bool = True,
        random_sign_flip: bool | None = None,
        memory_length: int | None = None,
        max_encoder_length: int = 1,
        max_prediction_length: int = 1,
        target: str | list[str] | None = None,
        output_size: int | list[int] = 1,
        static_categoricals: list[str] | None = None,
        static_reals: list[str] | None = None,
        time_varying_categoricals_encoder: list[str] | None = None,
        time_varying_categoricals_decoder: list[str] | None = None,
        time_varying_reals_encoder: list[str] | None = None,
        time_varying_reals_decoder: list[str] | None = None,
        x_reals: list[str] | None = None,
        x_categoricals: list[str] | None = None,
        embedding_sizes: dict[str, tuple[int, int]] | None = None,
        embedding_labels: dict[str, list[str]] | None = None,
        embedding_paddings: list[str] | None = None,
        categorical_groups: dict[str, list[str]] | None = None,
        missing_values: list[str] | None = None,
        loss: Any = None,
        logging_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        check_sizes(
            hidden_size=hidden_size,
            num_layers=num_layers,
            max_encoder_length=max_encoder_length,
            max_prediction_length=max_prediction_length,
        )
        check_bool("mLSTMTime", "instance_normalization", instance_normalization)
        memory_length = resolve_memory_length(memory_length, max_encoder_length)
        patch_length = resolve_patch_length(patch_length, memory_length)
        moving_averages = resolve_moving_averages(moving_averages, max_encoder_length)
        static_categoricals, static_reals = static_categoricals or [], static_reals or []
        time_varying_categoricals_encoder = time_varying_categoricals_encoder or []
        time_varying_categoricals_decoder = time_varying_categoricals_decoder or []
        time_varying_reals_encoder = time_varying_reals_encoder or []
        time_varying_reals_decoder = time_varying_reals_decoder or []
        x_reals, x_categoricals = x_reals or [], x_categoricals or []
        embedding_sizes, embedding_labels = embedding_sizes or {}, embedding_labels or {}
        embedding_paddings, categorical_groups = embedding_paddings or [], categorical_groups or {}
        missing_values = missing_values or []
        targets = to_list(target)
        history_reals = [name for name in time_varying_reals_encoder if name not in targets]
        history_categoricals = [n for n in time_varying_categoricals_encoder if n not in targets]
        covariates = [
            *history_reals,
            *history_categoricals,
            *time_varying_reals_decoder,
            *time_varying_categoricals_decoder,
            *static_reals,
            *static_categoricals,
        ]
        amplitudes = resolve_amplitudes(amplitudes, covariates)
        if random_sign_flip is not None:
            check_bool("mLSTMTime", "random_sign_flip", random_sign_flip)
        # every model gets a copy, since a loss has a state
        loss = MAE() if loss is None else clone_loss(loss, "mLSTMTime")
        logging_metrics = clone_logging_metrics(logging_metrics, "mLSTMTime")
        self.save_hyperparameters()
        super().__init__(loss=loss, logging_metrics=logging_metrics, **kwargs)
        self._covariates = list(dict.fromkeys(covariates))
        if random_sign_flip:
            check_flip_supported(self._covariates, self.loss, self.output_transformer)

        column_of = {name: column for column, name in reversed(list(enumerate(x_reals)))}

        def features(reals: list[str], categoricals: list[str]) -> Features:
            return Features([column_of[name] for name in reals], categoricals)

        self.network = mLSTMTimeNetwork(
            adapter.target_specs(
                target, output_size, embedding_sizes, self.loss, self.output_transformer
            ),
            history=max_encoder_length,
            horizon=max_prediction_length,
            memory_length=memory_length,
            hidden_size=hidden_size,
            num_layers=num_layers,
            num_heads=num_heads,
            dropout=dropout,
            patch_length=patch_length,
            moving_averages=moving_averages,
            amplitudes=amplitudes,
            instance_normalization=instance_normalization,
            embeddings=adapter.embedding_tables(
                {*static_categoricals, *history_categoricals, *time_varying_categoricals_decoder},
                embedding_sizes,
                x_categoricals,
                categorical_groups,
                embedding_paddings,
            ),
            history_features=features(history_reals, history_categoricals),
            horizon_features=features(
                time_varying_reals_decoder, time_varying_categoricals_decoder
            ),
            static_features=features(static_reals, static_categoricals),
            lagged_targets=adapter.lagged_targets(target, x_reals),
            missing=adapter.missing_inputs(self.hparams),
        )

    @property
    def random_sign_flip(self) -> bool:
        """Whether training negates each sample with probability 0.5."""
        requested = self.hparams.random_sign_flip
        if requested is None:
            requested = default_random_sign_flip(self.hparams.memory_length)
        return (
            requested
            and not self._covariates
            and find_asymmetric_metric(self.loss, self.output_transformer) is None
        )

    @classmethod
    def _pkg(cls) -> type:
        """Return the package container of the model."""
        from ._mlstm_time_pkg import mLSTMTime_pkg

        return mLSTMTime_pkg

    def forward(self, x: dict[str, Any]) -> Any:
        """Forecast.

        Parameters
        ----------
        x : dict
            Batch of a :class:`~pytorch_forecasting.TimeSeriesDataSet`.

        Returns
        -------
        Output
            Named tuple with ``prediction``, in the scale of the data: (B, steps, output_size) as
            the loss expects it, or a list of these for several targets.

        Raises
        ------
        ValueError
            If history or horizon is longer than the model was made for.
        """
        check_batch(self, x)
        inputs = adapter.network_inputs(x, self.reference_scales(x))
        flip = None
        if self.training and self.random_sign_flip:
            flip = sample_flip_mask(len(inputs.history_reals), inputs.history_reals.device)
        return self.to_network_output(prediction=self.rescale_forecasts(self.network(inputs, flip)))

    def rescale_forecasts(self, forecasts: list[TargetForecast]) -> Any:
        """Bring the network's forecast of each target to the scale of the data."""
        outputs, scales = map(list, zip(*forecasts, strict=True))
        if isinstance(self.loss, MultiLoss):
            return self.transform_output(outputs, scales)
        return self.transform_output(outputs[0], scales[0])

    def interpret_output(self, x: dict[str, Any], **unsupported: Any) -> Interpretation:
        """Decompose the forecast of a batch, and show what it reads from the memory.

        Parameters
        ----------
        x : dict
            Batch of a dataset, or ``x`` of ``predict(..., mode="raw", return_x=True)``, on the
            device of the model.
        **unsupported
            Other models take options such as ``reduction`` here; this one rejects them.

        Returns
        -------
        Interpretation
            The forecast; its components, which are trend, cycle, season and what the memory adds;
            the amplitudes by which the memory scales the first three; how much each step of the
            horizon reads from every step; and the time scales of the forget gates.

        Raises
        ------
        TypeError, ValueError
            If x is not the inputs of a batch, or history or horizon is longer than the model was
            made for.

        Examples
        --------
        >>> from pytorch_forecasting import TimeSeriesDataSet
        >>> from pytorch_forecasting.data.examples import generate_ar_data
        >>> dataset = TimeSeriesDataSet(
        ...     generate_ar_data(timesteps=100, n_series=2, seed=42), time_idx="time_idx",
        ...     target="value", group_ids=["series"], time_varying_unknown_reals=["value"],
        ...     max_encoder_length=30, max_prediction_length=5,
        ... )
        >>> model = mLSTMTime.from_dataset(dataset)
        >>> x, y = next(iter(dataset.to_dataloader(batch_size=4)))
        >>> interpretation = model.interpret_output(x)
        >>> interpretation.memory.shape, interpretation.read_weights.shape
        (torch.Size([4, 5, 1]), torch.Size([4, 1, 4, 5, 35]))
        """
        check_arguments(x, unsupported)
        return interpret(self, x)

    def plot_interpretation(
        self, interpretation: Interpretation, idx: int = 0, target: int = 0
    ) -> Any:
        """Plot the result of :meth:`interpret_output` for one sample.

        Parameters
        ----------
        interpretation : Interpretation
            The result.
        idx : int, default 0
            Number of the sample in the batch.
        target : int, default 0
            Number of the target, if there are several.

        Returns
        -------
        matplotlib.figure.Figure
            The components of the forecast (if it has several numbers per step, of the middle one),
            the read weights, and the time scales.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If there is no such sample or target.
        """
        return plot_interpretation(to_list(self.hparams.target), interpretation, idx, target)
