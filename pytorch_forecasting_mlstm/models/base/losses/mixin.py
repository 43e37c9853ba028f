"""A mixin that makes losses work in cases where pytorch-forecasting fails."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pytorch_forecasting.metrics import MASE, MultiLoss
from pytorch_forecasting.models.base import BaseModel
from pytorch_forecasting.utils import to_list
from torch import Tensor, nn

from ...._validation import check_int
from .factory import clone_loss
from .gradients import (
    check_loss_finite,
    check_parameters_finite,
    explain_nonfinite_output,
    zero_nan_gradients,
)
from .link import (
    component_metrics,
    per_target_losses,
    primary_metrics,
    target_normalizers,
)
from .missing import has_missing, observed_share, skip_missing
from .output import (
    exit_inference_mode,
    pack_targets,
    point_forecast,
    quantile_forecast,
    rescale,
    sort_quantiles,
    with_finite_rates,
)

__all__ = ["LossMixin"]

#: More samples of a distribution would fill the memory.
_MAX_SAMPLES = 1_000_000


class LossMixin(BaseModel):
    """A model that supports all losses of pytorch-forecasting, and can be copied and pickled."""

    def transform_output(
        self, prediction: Any, target_scale: Any, loss: Any = None
    ) -> Tensor | list[Tensor]:
        """Bring the output of the network to the scale of the data.

        This works like the method of pytorch-forecasting, with two exceptions: composite metrics,
        which pytorch-forecasting cannot rescale, and losses of log rates, whose output the
        normalizer must not transform.

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
            What the loss expects.

        Raises
        ------
        ValueError
            If a parameter of a distribution is not finite.
        """
        loss = self.loss if loss is None else loss
        metrics = primary_metrics(loss)
        rescaled = [
            rescale(metric, output, scale, normalizer)
            for metric, output, scale, normalizer in zip(
                metrics,
                to_list(prediction),
                to_list(target_scale),
                target_normalizers(self.output_transformer),
                strict=True,
            )
        ]
        for metric, parameters in zip(metrics, rescaled, strict=True):
            check_parameters_finite(metric, parameters, type(self).__name__)
        return rescaled if isinstance(loss, MultiLoss) else rescaled[0]

    def step(
        self, x: dict[str, Any], y: tuple[Any, Any], batch_idx: int, **kwargs: Any
    ) -> tuple[dict[str, Any], Any]:
        """Compute the loss of a batch, over the steps at which the target is not missing.

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
            Dictionary with the ``loss``, and the output of the network.

        Raises
        ------
        ValueError
            If the loss of a training step is not finite.
        """
        caller = type(self).__name__
        with explain_nonfinite_output(caller), self._without_missing(x, y, [self.loss]):
            log, out = exit_inference_mode(self.loss, super().step, x, y, batch_idx, **kwargs)
        if self.training:
            check_loss_finite(log["loss"], caller)
            zero_nan_gradients(self.loss, out["prediction"], log["loss"])
        return log, out

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Log values; outside of training, their mean over all processes.

        Parameters
        ----------
        *args, **kwargs
            Arguments of Lightning's ``log``.
        """
        kwargs.setdefault("sync_dist", not self.training)
        if self._observed_share is not None and "batch_size" in kwargs:
            # a batch counts in the mean of an epoch as much as it has observed steps
            kwargs["batch_size"] *= max(self._observed_share, 1e-9)
        super().log(*args, **kwargs)

    #: Share of the steps of the batch at which the target is observed; None if none is missing.
    _observed_share: float | None = None

    @contextmanager
    def _without_missing(self, x: dict[str, Any], y: Any, metrics: Iterable[Any]) -> Iterator[None]:
        """Let metrics skip the steps of a batch at which a target is missing."""
        targets = [y[0]]
        if any(isinstance(part, MASE) for part in self._all_metrics(metrics)):
            targets.append(x["encoder_target"])
        if self.predicting or not has_missing(*targets):
            yield
            return
        self._observed_share = observed_share(pack_targets(y, x["decoder_lengths"])[0])
        try:
            with skip_missing(metrics):
                yield
        finally:
            self._observed_share = None

    @staticmethod
    def _all_metrics(metrics: Iterable[Any]) -> list[Any]:
        losses = [loss for metric in metrics for loss in per_target_losses(metric)]
        return [part for loss in losses for part in component_metrics(loss)]

    def log_metrics(self, x: dict[str, Any], y: Any, out: Any, **kwargs: Any) -> None:
        """Log the metrics of a step without its padding, which pytorch-forecasting includes.

        Parameters
        ----------
        x, y : dict, tuple
            Batch of a :class:`~pytorch_forecasting.TimeSeriesDataSet`.
        out : Output
            Output of the network.
        **kwargs
            ``prediction_kwargs``, for :meth:`to_prediction`.
        """
        with self._without_missing(x, y, self.logging_metrics):
            super().log_metrics(x, pack_targets(y, x["decoder_lengths"]), out, **kwargs)

    def to_prediction(self, out: Any, use_metric: bool = True, **kwargs: Any) -> Any:
        """Return the point forecast of an output of the network.

        This works like the method of pytorch-forecasting, also for quantiles without the median,
        and for quantiles that cross, which are sorted.

        Parameters
        ----------
        out : Output
            Output of the network.
        use_metric : bool, default True
            Whether the loss makes the point forecast; if not, it is the mean of all numbers.
        **kwargs
            Arguments of the loss's ``to_prediction``, such as ``n_samples``.

        Returns
        -------
        Tensor or list of Tensor
            Point forecast (B, steps), for each target.

        Raises
        ------
        ValueError
            If ``kwargs`` ask for quantiles, which a point forecast does not have.
        """
        if kwargs.get("quantiles") is not None:
            raise ValueError(
                f"{type(self).__name__}: quantiles must be asked of the quantiles, got "
                f"{kwargs['quantiles']} for the point forecast; pass mode='quantiles' to predict, "
                f"or call to_quantiles."
            )
        _check_samples(kwargs, type(self).__name__)
        if not use_metric:
            return super().to_prediction(out, use_metric=False, **kwargs)
        with explain_nonfinite_output(type(self).__name__):
            points = [
                exit_inference_mode(metric, point_forecast, metric, prediction, **kwargs)
                for metric, prediction in zip(
                    primary_metrics(self.loss), to_list(out["prediction"]), strict=True
                )
            ]
        return points if isinstance(self.loss, MultiLoss) else points[0]

    def to_quantiles(self, out: Any, use_metric: bool = True, **kwargs: Any) -> Any:
        """Return the quantiles of an output of the network.

        This works like the method of pytorch-forecasting, also in inference mode, with two
        exceptions: quantiles do not cross, since they are sorted, and levels other than those of a
        quantile loss are interpolated; pytorch-forecasting ignores them.

        Parameters
        ----------
        out : Output
            Output of the network.
        use_metric : bool, default True
            Whether the loss makes the quantiles; if not, they are those of all numbers.
        **kwargs
            ``quantiles``, the levels, by default those of the loss; and other arguments of the
            loss's ``to_quantiles``, such as ``n_samples``.

        Returns
        -------
        Tensor or list of Tensor
            Quantiles (B, steps, quantiles), for each target.

        Raises
        ------
        ValueError
            If ``quantiles`` are not between 0 and 1, or beyond those that a quantile loss was
            trained on, or if the loss forecasts a point.
        """
        out = {"prediction": out["prediction"]}
        caller = type(self).__name__
        _check_samples(kwargs, caller)
        if use_metric and kwargs.get("quantiles") is not None:
            with explain_nonfinite_output(caller):
                forecasts = [
                    exit_inference_mode(
                        metric, quantile_forecast, metric, prediction, caller=caller, **kwargs
                    )
                    for metric, prediction in zip(
                        primary_metrics(self.loss), to_list(out["prediction"]), strict=True
                    )
                ]
            return forecasts if isinstance(self.loss, MultiLoss) else forecasts[0]
        with explain_nonfinite_output(caller):
            result = exit_inference_mode(self.loss, super().to_quantiles, out, use_metric, **kwargs)
        if not use_metric:
            return result
        forecasts = [
            sort_quantiles(
                with_finite_rates(metric, prediction, values), getattr(metric, "quantiles", None)
            )
            for metric, prediction, values in zip(
                primary_metrics(self.loss),
                to_list(out["prediction"]),
                to_list(result),
                strict=True,
            )
        ]
        return forecasts if isinstance(self.loss, MultiLoss) else forecasts[0]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the results of the last step, which can be neither copied nor pickled."""
        outputs = ("training_step_outputs", "validation_step_outputs", "testing_step_outputs")
        state = {**super().__getstate__(), **{name: [] for name in outputs}}
        state.pop("_output_class", None)  # a local class that pytorch-forecasting caches
        caller = type(self).__name__
        metrics = {
            "loss": clone_loss(self.loss, caller),
            "logging_metrics": nn.ModuleList(
                clone_loss(metric, caller) for metric in self.logging_metrics
            ),
        }
        return {**state, "_modules": {**self._modules, **metrics}}


def _check_samples(kwargs: dict[str, Any], caller: str) -> None:
    if "n_samples" in kwargs:
        check_int(caller, "n_samples", kwargs["n_samples"], maximum=_MAX_SAMPLES)
