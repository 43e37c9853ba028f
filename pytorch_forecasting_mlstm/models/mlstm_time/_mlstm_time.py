"""mLSTMTime: direct multi-horizon forecasts by linear paths and a matrix memory."""

import warnings
from typing import Any

import pandas as pd
import torch
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.data import NaNLabelEncoder
from pytorch_forecasting.metrics import MAE, MultiLoss
from pytorch_forecasting.models.base import BaseModelWithCovariates
from pytorch_forecasting.utils import get_embedding_size, to_list
from torch import Tensor, nn

from ...layers import mLSTMLayer
from ...layers._recurrent._mlstm._checks import check_flag, check_size
from ..base.checkpoint.mixin import SafeCheckpoints
from ..base.checks.dataset import check_batch, check_samples
from ..base.checks.loss import (
    check_logged_metrics,
    check_losses,
    try_loss,
)
from ..base.checks.mixin import CheckedData
from ..base.checks.nonfinite import check_centers, check_transformations
from ..base.forecast.forecast import forecast
from ..base.losses.factory import (
    choose_loss,
    fresh_loss,
    logged_metrics,
    losses_of,
    normalizers_of,
    output_size_of,
    outside_inference_mode,
    pack_targets,
    point_forecast,
    rescale,
    tell_transformations,
    whole_horizon,
)
from ..base.losses.gradients import (
    check_loss,
    divergence_told,
    keep_exact_fits,
)
from ..base.padding import (
    align_right,
    pad_steps,
    unfold,
    valid_steps,
)
from ..base.plotting import PlottedPredictions
from ..base.prediction import GatheredPredictions
from .defaults import (
    default_moving_averages,
    default_patch_length,
    default_random_sign_flip,
)
from .interpretation import (
    Interpretation,
    interpret,
    plot_interpretation,
)
from .linear_paths import PATHS
from .sign_flip import (
    check_can_be_turned,
    draw_turned,
    mirrored,
    mirrored_past,
    one_sided_part,
)
from .submodules import (
    ColumnEmbedding,
    StepFeatures,
    Tokens,
)
from .targets import TargetPast, make_target

__all__ = ["mLSTMTime"]


class mLSTMTime(
    CheckedData, SafeCheckpoints, GatheredPredictions, PlottedPredictions, BaseModelWithCovariates
):
    r"""Forecast with linear paths and an mLSTM memory that scales and corrects them.

    A direct multi-horizon model in the style of xLSTMTime [1]_::

        ŷ = scale back( a₁ linear(trend) + a₂ linear(cycle) + a₃ linear(season) + b )
        b = head(memory)      a = 1 + tanh(head'(memory)), with covariates 1

    1. The history of every sample is brought to mean 0 and deviation 1 over its own valid steps.
    2. Trend (a long moving average), cycle (what a short one has beyond it) and season (the rest)
       are each mapped to the horizon by one matrix.
    3. Beside them, all that is known at each step of the history and its position, folded into
       patches, goes through stacked mLSTM cells [2]_; the same cells carry their state on over the
       horizon, fed with the known future and the position. Two heads read off them what is added
       to the linear paths at every step, b, and the paths' amplitudes in every patch, a.
    4. The sum goes back to the scale of the data, through the host's own ``transform_output``.

    Where ``random_sign_flip`` are on, half of the samples of a training, drawn anew every time, go
    through the network upside down, and their forecasts back.

    Padding is masked exactly: the forecast of a sample depends on that sample alone. Encoder and
    decoder lengths may vary up to those of the dataset the model was made from; a history may be
    empty.

    Build it with :meth:`from_dataset`, which chooses all arguments that follow from the data.

    Parameters
    ----------
    hidden_size : int, default 64
        Width of tokens and hidden states, H. A multiple of ``num_heads``.
    num_layers : int, default 1
        Number of stacked mLSTM cells.
    num_heads : int, default 4
        Heads, each with a matrix memory of (H / NH)².
    dropout : float, default 0.1
        Probability of dropout on inputs and hidden states of the cells.
    patch_length : int, optional
        Steps folded into one token. Default: by the length of the history, 1 below 64 steps and 16
        from 512 on.
    moving_averages : tuple of int, optional
        Steps that are averaged to the trend, and those, at most as many, to trend and cycle.
        Default: a third of the history, and a seventh of that, made odd, so 171 and 25 of 512, but
        at least 5 and 3.
    amplitudes : bool, optional
        Whether the memory scales the linear paths. Default: where it reads nothing but the history
        of the targets; covariates let amplitudes learn the training data by heart.
    instance_normalization : bool, default True
        Whether every sample is brought to its own scale, or all are left at the host's.
    random_sign_flip : bool, optional
        Whether training turns half of the samples upside down, so that the memory learns no drift
        by heart; False where series have a direction, as those that grow or saturate. It can, where
        the model reads nothing but the history of the targets, and the losses treat both signs
        alike: MAE, MASE, RMSE of a target without transformation, and weighted sums of these.
        Default: True where it can and ``max_encoder_length`` is at least 64.
    max_encoder_length, max_prediction_length : int
        Longest history and horizon.
    target : str or list of str
        Name of the target or targets.
    output_size : int or list of int
        Numbers per step that the loss takes, for each target.
    static_categoricals : list of str
        Names of categorical variables that do not change with time.
    time_varying_categoricals_encoder, time_varying_categoricals_decoder : list of str
        Names of categorical variables known in the history, and ahead.
    static_reals : list of str
        Names of real variables that do not change with time.
    time_varying_reals_encoder, time_varying_reals_decoder : list of str
        Names of real variables known in the history, and ahead.
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
    loss : Metric, optional
        Loss of the host; point, quantile and distribution losses, and ``MultiLoss``. The model
        works on a copy. Default: MAE; in :meth:`from_dataset` CrossEntropy for a categorical
        target, MultiLoss for several.
    logging_metrics : list of Metric, optional
        Metrics of the point forecast to log in training and validation, copied as the loss is.
        Default: none.
    **kwargs
        Arguments of :class:`pytorch_forecasting.models.base.BaseModel`: ``learning_rate``,
        ``optimizer``, ``weight_decay``, ``log_interval``, ``reduce_on_plateau_patience`` and so on.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range, samples cannot be turned that are to
        be, or a batch is longer than the model was made for.

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
    >>> model = mLSTMTime.from_dataset(dataset)
    >>> x, y = next(iter(dataset.to_dataloader(batch_size=4)))
    >>> model(x).prediction.shape
    torch.Size([4, 5, 1])
    """

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
        loss: Any = None,
        logging_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        sizes = {
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "max_encoder_length": max_encoder_length,
            "max_prediction_length": max_prediction_length,
        }
        for name, size in sizes.items():
            check_size("mLSTMTime", name, size)
        check_flag("mLSTMTime", "instance_normalization", instance_normalization)
        if patch_length is None:
            patch_length = default_patch_length(max_encoder_length)
        check_size("mLSTMTime", "patch_length", patch_length)
        if moving_averages is None:
            moving_averages = default_moving_averages(max_encoder_length)
        moving_averages = _checked_averages(moving_averages)
        static_categoricals = static_categoricals or []
        static_reals = static_reals or []
        time_varying_categoricals_encoder = time_varying_categoricals_encoder or []
        time_varying_categoricals_decoder = time_varying_categoricals_decoder or []
        time_varying_reals_encoder = time_varying_reals_encoder or []
        time_varying_reals_decoder = time_varying_reals_decoder or []
        x_reals = x_reals or []
        x_categoricals = x_categoricals or []
        embedding_sizes = embedding_sizes or {}
        embedding_labels = embedding_labels or {}
        embedding_paddings = embedding_paddings or []
        categorical_groups = categorical_groups or {}
        targets = to_list(target)
        history_reals = [name for name in time_varying_reals_encoder if name not in targets]
        history_classes = [n for n in time_varying_categoricals_encoder if n not in targets]
        known = [*time_varying_reals_decoder, *time_varying_categoricals_decoder]
        static = [*static_reals, *static_categoricals]
        covariates = [*history_reals, *history_classes, *known, *static]
        if amplitudes is None:
            amplitudes = not covariates
        check_flag("mLSTMTime", "amplitudes", amplitudes)
        if random_sign_flip is not None:
            check_flag("mLSTMTime", "random_sign_flip", random_sign_flip)
        # a loss is a module with a state: a default of its own for every model, and a copy of the
        # caller's
        loss = MAE() if loss is None else fresh_loss(loss)
        logging_metrics = logged_metrics(logging_metrics)
        with warnings.catch_warnings():
            # Lightning advises authors of models to keep modules out of the checkpoint; the host
            # wants them there, and users can do nothing about it
            warnings.filterwarnings("ignore", message="Attribute '.*' is an instance of")
            self.save_hyperparameters()
            super().__init__(loss=loss, logging_metrics=logging_metrics, **kwargs)
        tell_transformations(self.loss, self.output_transformer)
        self._covariates = list(dict.fromkeys(covariates))
        if random_sign_flip:
            check_can_be_turned(self._covariates, self.loss, self.output_transformer)

        used = {*static_categoricals, *history_classes, *time_varying_categoricals_decoder}
        self.embedding = ColumnEmbedding(
            embedding_sizes={name: size for name, size in embedding_sizes.items() if name in used},
            x_categoricals=x_categoricals,
            categorical_groups={n: g for n, g in categorical_groups.items() if n in used},
            embedding_paddings=embedding_paddings,
        )
        self.static_features = self._features(static_reals, static_categoricals)
        self.history_features = self._features(history_reals, history_classes)
        self.future_features = self._features(
            time_varying_reals_decoder, time_varying_categoricals_decoder
        )

        # whole patches: there may be steps of padding before the history and after the horizon
        future_patch = min(patch_length, max_prediction_length)
        future_tokens = -(-max_prediction_length // future_patch)
        self.history_steps = -(-max_encoder_length // patch_length) * patch_length
        self.future_steps = future_tokens * future_patch
        self.output_sizes = to_list(output_size)
        past_of_targets = [
            make_target(
                normalizer,
                part,
                self.history_steps,
                max_prediction_length,
                moving_averages,
                size,
                instance_normalization,
                embedding_sizes[name][1] if name in embedding_sizes else None,
            )
            for name, normalizer, part, size in zip(
                targets,
                normalizers_of(self.output_transformer),
                losses_of(self.loss),
                self.output_sizes,
                strict=True,
            )
        ]
        self.targets = nn.ModuleList(past_of_targets)
        step_size = sum(target.size for target in past_of_targets) + self.history_features.size
        self.history_tokens = Tokens(step_size, patch_length, hidden_size)
        self.future_tokens = Tokens(self.future_features.size, future_patch, hidden_size)
        tokens = self.history_steps // patch_length + future_tokens
        self.position = nn.Parameter(0.5 * torch.randn(tokens, hidden_size))
        self.static = (
            nn.Linear(self.static_features.size, hidden_size) if self.static_variables else None
        )
        self.norm_tokens = nn.LayerNorm(hidden_size)
        self.memory = mLSTMLayer(
            hidden_size, hidden_size, num_layers, dropout, num_heads=num_heads, batch_first=True
        )
        self.norm_memory = nn.LayerNorm(hidden_size)
        self.head = nn.Linear(hidden_size, future_patch * sum(self.output_sizes))
        self.amplitude_head = (
            nn.Linear(hidden_size, len(PATHS) * len(targets)) if amplitudes else None
        )
        for head in (self.head, self.amplitude_head):
            if head is not None:  # at first the linear paths pass nearly unchanged
                nn.init.normal_(head.weight, std=0.01 / hidden_size**0.5)
                nn.init.zeros_(head.bias)

    @property
    def random_sign_flip(self) -> bool:
        """Whether training turns half of the samples upside down."""
        wanted = self.hparams.random_sign_flip
        if wanted is None:
            wanted = default_random_sign_flip(self.hparams.max_encoder_length)
        return (
            wanted
            and not self._covariates
            and one_sided_part(self.loss, self.output_transformer) is None
        )

    def _features(self, reals: list[str], categoricals: list[str]) -> StepFeatures:
        return StepFeatures(reals, categoricals, self.hparams.x_reals, self.embedding.widths)

    @classmethod
    def _pkg(cls) -> type:
        """Package container of the model."""
        from ._mlstm_time_pkg import mLSTMTime_pkg

        return mLSTMTime_pkg

    @classmethod
    def from_dataset(
        cls,
        dataset: TimeSeriesDataSet,
        allowed_encoder_known_variable_names: list[str] | None = None,
        **kwargs: Any,
    ) -> "mLSTMTime":
        """Make a model that fits a dataset.

        Parameters
        ----------
        dataset : TimeSeriesDataSet
            Dataset to train on.
        allowed_encoder_known_variable_names : list of str, optional
            Known variables that the history may be read with. Default: all.
        **kwargs
            Arguments of :class:`mLSTMTime`. Lengths may be larger than the dataset's, embeddings
            of other widths; what else follows from the dataset and the loss cannot be changed.

        Returns
        -------
        mLSTMTime
            The untrained model.

        Raises
        ------
        TypeError, ValueError
            If the loss does not fit the targets, or an argument contradicts the dataset.
        """
        if not isinstance(dataset, TimeSeriesDataSet):
            raise TypeError(
                f"mLSTMTime: dataset must be a TimeSeriesDataSet, got "
                f"{type(dataset).__name__}; make one of the table first."
            )
        check_transformations(dataset)
        check_centers(dataset)
        check_samples(dataset)
        loss = choose_loss(dataset, kwargs.pop("loss", None))
        check_losses(loss, dataset)
        output_sizes = [
            output_size_of(part, normalizer)
            for part, normalizer in zip(
                losses_of(loss), normalizers_of(dataset.target_normalizer), strict=True
            )
        ]
        from_data = {
            "target": dataset.target,
            "output_size": output_sizes if dataset.multi_target else output_sizes[0],
            "max_encoder_length": dataset.max_encoder_length,
            "max_prediction_length": dataset.max_prediction_length,
            "embedding_sizes": _embedding_sizes(dataset, kwargs.pop("embedding_sizes", {})),
        }
        for name in ("target", "output_size"):
            if kwargs.get(name, from_data[name]) != from_data[name]:
                raise ValueError(
                    f"mLSTMTime: {name} follows from the dataset and the loss, here "
                    f"{from_data[name]!r}, got {kwargs[name]!r}; leave it out."
                )
        for name in ("max_encoder_length", "max_prediction_length"):
            if kwargs.get(name, from_data[name]) < from_data[name]:
                raise ValueError(
                    f"mLSTMTime: {name} must be at least the dataset's {from_data[name]}, "
                    f"got {kwargs[name]}; leave it out, or make the dataset with a smaller one."
                )
        model = super().from_dataset(
            dataset, allowed_encoder_known_variable_names, loss=loss, **{**from_data, **kwargs}
        )
        check_logged_metrics(model.logging_metrics, dataset)
        try_loss(model, dataset)
        return model

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
            the loss takes it, or a list of these for several targets.

        Raises
        ------
        ValueError
            If history or horizon is longer than the model was made for.
        """
        check_batch(self, x)
        self._check_lengths(x)
        past = valid_steps(x["encoder_lengths"], self.history_steps, right=True)
        future = valid_steps(x["decoder_lengths"], self.future_steps)

        targets = [
            target(self._align(raw, x), past, scale)
            for target, raw, scale in zip(
                self.targets, to_list(x["encoder_target"]), to_list(x["target_scale"]), strict=True
            )
        ]
        turned = None
        if self.training and self.random_sign_flip:
            turned = draw_turned(targets)
            targets = list(map(mirrored_past, targets, turned))
        steps = x["decoder_cont"].shape[1]
        outputs = [
            (target.paths[:, :steps] * amplitudes[:, :steps]).sum(-1) + added[:, :steps]
            for target, added, amplitudes in zip(
                targets, *self._read_memory(x, targets, past, future), strict=True
            )
        ]
        if turned is not None:
            outputs = list(map(mirrored, outputs, turned))
        scales = [
            scale if target.scale is None else target.scale.target_scale
            for scale, target in zip(to_list(x["target_scale"]), targets, strict=True)
        ]
        several = isinstance(self.loss, MultiLoss)
        prediction = self.transform_output(
            outputs if several else outputs[0], scales if several else scales[0]
        )
        return self.to_network_output(prediction=prediction)

    def forecast(
        self,
        data: pd.DataFrame,
        future: pd.DataFrame | None = None,
        *,
        batch_size: int = 64,
        trainer_kwargs: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        r"""Forecast what comes after a table: the steps after the last row of every series.

        Every series goes on from its own last time index, so lengths and ends may differ. No rows
        with made-up targets are needed, and of the history only the last ``max_encoder_length``
        steps, with so many rows before them as the largest lag. Series that the model was not
        trained on are forecast, too, unless it scales each by its own training data, has an
        embedding for each, or the host encodes their names for a ``GroupNormalizer`` or a
        ``MultiNormalizer``: then ``categorical_encoders`` of the dataset must allow for new ones.

        Parameters
        ----------
        data : pandas.DataFrame
            The history: rows with all columns that the dataset was made of, in any order; others
            are ignored, and so is the weight.
        future : pandas.DataFrame, optional
            What is known of the horizon: the group columns, the time index and the known
            variables, with one row per series and step. Rows outside the horizon are ignored.
            Needed if the dataset has known variables, apart from what follows from the history:
            the time index, lags, and what the dataset adds by itself. Static variables are those
            of the last row of ``data``. Where rows are missing, the ``constant_fill_strategy`` of
            the dataset speaks for its variables; with ``allow_missing_timesteps``, a row that is
            missing before a later one repeats the row before it, as it does in the history.
        batch_size : int, default 64
            Series that are forecast at a time.
        trainer_kwargs : dict, optional
            Arguments of the Lightning ``Trainer``, for example ``{"accelerator": "cpu"}``.

        Returns
        -------
        pandas.DataFrame
            One row per series and step, series in the order of ``data``: the group columns; the
            time index, under its own name; ``step``, from 1 to ``max_prediction_length``; for
            several targets ``target``, and one row for each; ``prediction``, the point forecast of
            the loss, in the unit of the data, for a categorical target its most probable label; for
            a loss with several quantiles each of these, as ``q0.1``; for a categorical target the
            probability of each label, as ``p_label``.

        Raises
        ------
        TypeError, ValueError
            If the model was not made by :meth:`from_dataset`, a column is missing or of the wrong
            type, a value that is read is empty or infinite, a label or series unknown that the
            model would have to know, a series too short, a time index missing or there twice, or a
            known variable without value.

        Examples
        --------
        >>> import pandas as pd
        >>> from pytorch_forecasting import TimeSeriesDataSet
        >>> from pytorch_forecasting_mlstm import mLSTMTime
        >>> data = pd.DataFrame({"shop": "a", "day": range(40), "sold": [1.0, 2.0, 4.0, 3.0] * 10})
        >>> dataset = TimeSeriesDataSet(
        ...     data, time_idx="day", target="sold", group_ids=["shop"],
        ...     max_encoder_length=12, max_prediction_length=3, time_varying_unknown_reals=["sold"],
        ... )
        >>> model = mLSTMTime.from_dataset(dataset)  # and train it
        >>> forecast = model.forecast(data.tail(12))
        >>> forecast[["shop", "day", "step"]]
          shop  day  step
        0    a   40     1
        1    a   41     2
        2    a   42     3
        >>> bool(forecast["prediction"].between(-5, 10).all())
        True
        """
        return forecast(self, data, future, batch_size=batch_size, trainer_kwargs=trainer_kwargs)

    def interpret_output(self, x: dict[str, Any]) -> Interpretation:
        """Look inside the forecast of a batch.

        Parameters
        ----------
        x : dict
            Batch of a dataset, or ``x`` of ``predict(..., mode="raw", return_x=True)``, on the
            device of the model.

        Returns
        -------
        Interpretation
            The forecast, its parts (trend, cycle, season and what the memory adds), the amplitudes
            that the memory gives the first three, which of the past each of its steps reads from
            the memory, and the time scales of the forget gates.

        Raises
        ------
        ValueError
            If history or horizon is longer than the model was made for.

        Examples
        --------
        >>> from pytorch_forecasting import TimeSeriesDataSet
        >>> from pytorch_forecasting.data.examples import generate_ar_data
        >>> from pytorch_forecasting_mlstm import mLSTMTime
        >>> dataset = TimeSeriesDataSet(
        ...     generate_ar_data(timesteps=100, n_series=2, seed=42), time_idx="time_idx",
        ...     target="value", group_ids=["series"], time_varying_unknown_reals=["value"],
        ...     max_encoder_length=30, max_prediction_length=5,
        ... )
        >>> model = mLSTMTime.from_dataset(dataset)
        >>> x, y = next(iter(dataset.to_dataloader(batch_size=4)))
        >>> inside = model.interpret_output(x)
        >>> inside.memory.shape, inside.read_weights.shape
        (torch.Size([4, 5, 1]), torch.Size([4, 1, 4, 5, 35]))
        """
        return interpret(self, x)

    def plot_interpretation(
        self, interpretation: Interpretation, idx: int = 0, target: int = 0
    ) -> Any:
        """Draw what :meth:`interpret_output` found for one sample.

        Parameters
        ----------
        interpretation : Interpretation
            What was found.
        idx : int, default 0
            Number of the sample in the batch.
        target : int, default 0
            Number of the target, where there are several.

        Returns
        -------
        matplotlib.figure.Figure
            Parts of the forecast (of several numbers per step, the middle one), read weights, and
            time scales.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If there is no such sample or target.
        """
        return plot_interpretation(self, interpretation, idx, target)

    def _read_memory(
        self, x: dict[str, Any], targets: list[TargetPast], past: Tensor, future: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Run the cells over history and horizon, and read the steps of the horizon off them.

        Returns
        -------
        tuple of list of Tensor
            For each target what is added to the linear paths, (B, steps, output_size), and the
            paths' amplitudes, (B, steps, 1, 3).
        """
        dtype = self.position.dtype  # of a model in double precision, whatever the batch's
        reals, classes = self._align(x["encoder_cont"], x), self._align(x["encoder_cat"], x)
        reals = self._scale_lags(reals.to(dtype), targets)
        history = self.history_features(reals, self.embedding(classes))
        history = torch.cat([*(target.features for target in targets), history], dim=-1)
        history_tokens, history_mask = self.history_tokens(history, past)

        reals = pad_steps(x["decoder_cont"].to(dtype), self.future_steps)
        reals = self._scale_lags(reals, targets)
        embedded = self.embedding(pad_steps(x["decoder_cat"], self.future_steps))
        future_tokens, future_mask = self.future_tokens(
            self.future_features(reals, embedded), future
        )
        tokens = torch.cat([history_tokens, future_tokens], dim=1) + self.position
        if self.static is not None:
            # the first step of the horizon is never padding, as that of the history may be
            first = {name: vectors[:, 0] for name, vectors in embedded.items()}
            tokens = tokens + self.static(self.static_features(reals[:, 0], first))[:, None]
        hidden, _ = self.memory(
            self.norm_tokens(tokens), mask=torch.cat([history_mask, future_mask], dim=1)
        )
        hidden = (tokens + hidden)[:, -future_tokens.shape[1] :]
        hidden = self.norm_memory(hidden)
        patches = None if self.amplitude_head is None else self.amplitude_head(hidden)
        return self.unfold_added(self.head(hidden)), self.unfold_amplitudes(patches)

    def unfold_added(self, patches: Tensor) -> list[Tensor]:
        """Unfold what the head gives for every patch: for each target (B, steps, output_size)."""
        return list(
            unfold(_not_16_bits(patches), self.future_tokens.patch_length).split(
                self.output_sizes, -1
            )
        )

    def unfold_amplitudes(self, patches: Tensor | None) -> list[Tensor]:
        """Turn what their head gives for a patch to amplitudes, of each target (B, steps, 1, 3).

        Without a head they are 1, and broadcast.
        """
        if patches is None:
            one = torch.ones((), dtype=torch.float32, device=self.position.device)
            return [one.expand(1, self.future_steps, 1, len(PATHS))] * len(self.output_sizes)
        steps = (1 + _not_16_bits(patches).tanh()).repeat_interleave(
            self.future_tokens.patch_length, dim=1
        )
        return list(steps[:, :, None].split(len(PATHS), -1))

    def _align(self, values: Tensor, x: dict[str, Any]) -> Tensor:
        return align_right(values, x["encoder_lengths"], self.history_steps)

    def _scale_lags(self, reals: Tensor, targets: list[TargetPast]) -> Tensor:
        """Bring columns that hold a target's earlier values to the scale that the target has."""
        columns = {
            column: target.scale
            for name, target in zip(to_list(self.hparams.target), targets, strict=True)
            for column, real in enumerate(self.hparams.x_reals)
            if real.startswith(f"{name}_lagged_by_") and target.scale is not None
        }
        if not columns:
            return reals
        parts = list(reals.unbind(-1))
        for column, scale in columns.items():
            parts[column] = scale.normalize(parts[column])
        return torch.stack(parts, dim=-1)

    def transform_output(
        self, prediction: Any, target_scale: Any, loss: Any = None
    ) -> Tensor | list[Tensor]:
        """Bring the network's output to the scale of the data.

        As the host does it, but for composite metrics, which the host cannot rescale, and for
        losses that take the exponential themselves, whose rate no normalizer must touch.

        Parameters
        ----------
        prediction : Tensor or list of Tensor
            Output of the network, (B, steps, output_size), for each target.
        target_scale : Tensor or list of Tensor
            Center and scale, (B, 2), for each target.
        loss : Metric, optional
            Default: the model's loss.

        Returns
        -------
        Tensor or list of Tensor
            What the loss takes.
        """
        loss = self.loss if loss is None else loss
        rescaled = [
            rescale(part, output, scale, normalizer)
            for part, output, scale, normalizer in zip(
                losses_of(loss),
                to_list(prediction),
                to_list(target_scale),
                normalizers_of(self.output_transformer),
                strict=True,
            )
        ]
        return rescaled if isinstance(loss, MultiLoss) else rescaled[0]

    def step(
        self, x: dict[str, Any], y: tuple[Any, Any], batch_idx: int, **kwargs: Any
    ) -> tuple[dict[str, Any], Any]:
        """Compute the loss of a batch, as the host does it, wherever the loss takes derivatives.

        Parameters
        ----------
        x, y : dict, tuple
            Batch of a :class:`~pytorch_forecasting.TimeSeriesDataSet`.
        batch_idx : int
            Number of the batch.
        **kwargs
            Arguments of :meth:`forward`.

        Returns
        -------
        tuple
            Dictionary with the ``loss``, and the network's output.

        Raises
        ------
        ValueError
            If the loss of a training step is not finite.
        """
        with divergence_told():
            log, out = outside_inference_mode(self.loss, super().step, x, y, batch_idx, **kwargs)
        if self.training:
            check_loss(log["loss"])
            keep_exact_fits(self.loss, out["prediction"], log["loss"])
        return log, out

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Log, but for training the mean of all processes: each has its part of the windows.

        Parameters
        ----------
        *args, **kwargs
            As of Lightning's ``log``.
        """
        kwargs.setdefault("sync_dist", not self.training)
        super().log(*args, **kwargs)

    def log_metrics(self, x: dict[str, Any], y: Any, out: Any, **kwargs: Any) -> None:
        """Log metrics of a step, as the host does it, but for padded steps, which it counts.

        Parameters
        ----------
        x, y : dict, tuple
            Batch of a :class:`~pytorch_forecasting.TimeSeriesDataSet`.
        out : Output
            Output of the network.
        **kwargs
            ``prediction_kwargs``, for :meth:`to_prediction`.
        """
        super().log_metrics(x, pack_targets(y, x["decoder_lengths"]), out, **kwargs)

    def to_prediction(self, out: Any, use_metric: bool = True, **kwargs: Any) -> Any:
        """Return the point forecast of a network's output.

        As the host does it, but for quantiles without the median, of which the host makes none.

        Parameters
        ----------
        out : Output
            Output of the network.
        use_metric : bool, default True
            Whether the loss chooses the point, or the mean of all numbers is taken.
        **kwargs
            Arguments of the loss's ``to_prediction``, such as ``n_samples``.

        Returns
        -------
        Tensor or list of Tensor
            Point forecast (B, steps), for each target.
        """
        if not use_metric:
            return super().to_prediction(out, use_metric=False, **kwargs)
        with divergence_told():
            points = [
                outside_inference_mode(loss, point_forecast, loss, prediction, **kwargs)
                for loss, prediction in zip(
                    losses_of(self.loss), to_list(out["prediction"]), strict=True
                )
            ]
        return points if isinstance(self.loss, MultiLoss) else points[0]

    def to_quantiles(self, out: Any, use_metric: bool = True, **kwargs: Any) -> Any:
        """Return the quantiles of a network's output, as the host does it, in inference mode too.

        Parameters
        ----------
        out : Output
            Output of the network.
        use_metric : bool, default True
            Whether the loss makes the quantiles, or they are those of all numbers.
        **kwargs
            Arguments of the loss's ``to_quantiles``, such as ``quantiles``.

        Returns
        -------
        Tensor or list of Tensor
            Quantiles (B, steps, quantiles), for each target.
        """
        out = {"prediction": out["prediction"]}
        with divergence_told():
            return outside_inference_mode(
                self.loss, super().to_quantiles, out, use_metric, **kwargs
            )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what the last step left behind: it cannot be copied or pickled."""
        passing = ("training_step_outputs", "validation_step_outputs", "testing_step_outputs")
        state = {**super().__getstate__(), **{name: [] for name in passing}}
        state.pop("_output_class", None)  # the host's local class, in a derived model
        logged = nn.ModuleList(fresh_loss(metric) for metric in self.logging_metrics)
        metrics = {"loss": fresh_loss(self.loss), "logging_metrics": logged}
        return {**state, "_modules": {**self._modules, **metrics}}

    def _check_lengths(self, x: dict[str, Any]) -> None:
        for part, steps in (
            ("encoder", self.hparams.max_encoder_length),
            ("prediction", self.hparams.max_prediction_length),
        ):
            got = x["encoder_cont" if part == "encoder" else "decoder_cont"].shape[1]
            if got > steps:
                raise ValueError(
                    f"mLSTMTime: the model was made for a max_{part}_length of {steps}, got a "
                    f"batch of {got} steps; make the dataset with TimeSeriesDataSet.from_dataset("
                    f"training_dataset, ...), or a model from this dataset."
                )
        if got < steps and any(map(whole_horizon, losses_of(self.loss))):
            raise ValueError(
                f"mLSTMTime: {self.loss!r} forecasts all {steps} steps of the horizon as one, got "
                f"a batch of {got} steps; make the dataset with min_prediction_length={steps}."
            )


def _not_16_bits(x: Tensor) -> Tensor:
    """Return x in float32 at least: 16 bits are enough for weights, not for a forecast of 6490."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _checked_averages(moving_averages: Any) -> tuple[int, int]:
    """Return the two widths, from a list, too: configuration files know no tuples."""
    pair = isinstance(moving_averages, (tuple, list))
    if not pair or len(moving_averages) != 2:
        raise (ValueError if pair else TypeError)(
            f"mLSTMTime: moving_averages must be two numbers of steps, such as (171, 25), got "
            f"{moving_averages!r}."
        )
    trend, smooth = moving_averages
    check_size("mLSTMTime", "moving_averages[0]", trend)
    check_size("mLSTMTime", "moving_averages[1]", smooth)
    if trend < smooth:
        raise ValueError(
            f"mLSTMTime: moving_averages must not grow: the trend is averaged over at least as "
            f"many steps as trend and cycle, got {moving_averages!r}; swap them."
        )
    return trend, smooth


def _embedding_sizes(
    dataset: TimeSeriesDataSet, chosen: dict[str, tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    """Return classes and width for every categorical variable, lagged ones included."""
    encoders = dict(dataset._categorical_encoders)
    names = zip(dataset.target_names, normalizers_of(dataset.target_normalizer), strict=True)
    encoders.update({name: x for name, x in names if isinstance(x, NaNLabelEncoder)})
    sizes = {}
    for name, encoder in encoders.items():
        lagged = [f"{name}_lagged_by_{lag}" for lag in dataset._lags.get(name, [])]
        for variable in (name, *lagged):
            if variable in dataset.categoricals:
                classes = len(encoder.classes_)
                sizes[variable] = (classes, get_embedding_size(classes))
    unknown = sorted(set(chosen) - set(sizes))
    if unknown:
        raise ValueError(
            f"mLSTMTime: embedding_sizes must name categorical variables of the dataset, "
            f"{sorted(sizes)}, got {unknown}; correct or remove these."
        )
    return {**sizes, **chosen}
