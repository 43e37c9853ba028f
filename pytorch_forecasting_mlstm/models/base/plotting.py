"""Plots of predictions in the cases where those of pytorch-forecasting mix up targets or fail."""

from contextlib import nullcontext
from typing import Any

from pytorch_forecasting.data import NaNLabelEncoder
from pytorch_forecasting.models.base import BaseModelWithCovariates
from pytorch_forecasting.utils import to_list
from torchmetrics import Metric

from .inference import inference_view
from .losses.factory import clone_loss
from .losses.link import primary_metrics
from .losses.missing import has_missing, skip_missing
from .seeded_draws import fixed_seed

__all__ = ["PlottingMixin"]


class PlottingMixin(BaseModelWithCovariates):
    """A model of pytorch-forecasting that plots each of several targets in a figure of its own."""

    loss: Any

    def plot_prediction(
        self,
        x: dict[str, Any],
        out: Any,
        idx: int = 0,
        add_loss_to_title: Any = False,
        show_future_observed: bool = True,
        ax: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Plot a prediction and the observed values.

        Parameters
        ----------
        x : dict
            Batch.
        out : Output
            What the model returned for it.
        idx : int, default 0
            Sample to plot.
        add_loss_to_title : bool, Metric or Tensor, default False
            Whether to show the loss in the title, or which one, or the losses of all samples.
        show_future_observed : bool, default True
            Whether to plot the observed values of the horizon.
        ax : matplotlib.axes.Axes or list of these, optional
            Where to plot; for several targets a list, one for each.
        **kwargs
            ``quantiles_kwargs`` and ``prediction_kwargs`` of ``BaseModel.plot_prediction``.

        Returns
        -------
        Figure or list of Figure
            One for each target if there are several.

        Raises
        ------
        ValueError
            If the number of axes is not that of the targets.
        """
        names, options = to_list(self.hparams.target), (add_loss_to_title, show_future_observed)
        if len(names) == 1:
            view = self._view_with_loss(self.loss)
            losses = primary_metrics(view.loss)
            with view._skip_missing(x, add_loss_to_title), fixed_seed(losses, 0):
                return super(PlottingMixin, view).plot_prediction(
                    x, out, idx, *options, ax, **kwargs
                )
        all_axes = [None] * len(names) if ax is None else list(to_list(ax))
        if len(all_axes) != len(names):
            raise ValueError(
                f"{type(self).__name__}: ax must be a list of axes, one for each of the targets "
                f"{names}, got {len(all_axes)}; leave it out, and every target gets its own figure."
            )
        figures = []
        for number, (name, axes) in enumerate(zip(names, all_axes, strict=True)):
            histories = {key: x[key][number] for key in ("encoder_target", "decoder_target")}
            view = self._view_with_loss(self.loss.metrics[number])
            losses = primary_metrics(view.loss)
            with view._skip_missing(histories, add_loss_to_title), fixed_seed(losses, 0):
                figure = super(PlottingMixin, view).plot_prediction(
                    {**x, **histories},
                    {**out, "prediction": out["prediction"][number]},
                    idx,
                    *options,
                    axes,
                    **kwargs,
                )
            (figure.axes[0] if axes is None else axes).set_ylabel(name)
            figures.append(figure)
        return figures

    def calculate_prediction_actual_by_variable(
        self, x: dict[str, Any], y_pred: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Average forecasts and observed values by the values of each variable.

        Parameters
        ----------
        x : dict
            Batch.
        y_pred : Tensor
            Point forecasts for it, (B, steps).
        *args, **kwargs
            Arguments of ``BaseModelWithCovariates.calculate_prediction_actual_by_variable``.

        Returns
        -------
        dict
            What ``plot_prediction_actual_by_variable`` expects.

        Raises
        ------
        ValueError
            If there are several targets, or a categorical one, which has no averages; or if a
            value of the batch is missing.
        """
        target, normalizer = self.hparams.target, self.output_transformer
        if not isinstance(target, str) or isinstance(normalizer, NaNLabelEncoder):
            raise ValueError(
                f"{type(self).__name__}: averages by variable need a single real target, got "
                f"{target!r} with {type(normalizer).__name__}; average the results of forecast() "
                f"or predict() instead."
            )
        values = x["decoder_target"], x["encoder_target"], x["encoder_cont"], x["decoder_cont"]
        if has_missing(*values):
            raise ValueError(
                f"{type(self).__name__}: averages by variable need all values of a batch, got one "
                f"with missing values (NaN); leave such windows out, or average the results of "
                f"forecast() instead."
            )
        return super().calculate_prediction_actual_by_variable(x, y_pred, *args, **kwargs)

    def _view_with_loss(self, loss: Any) -> "PlottingMixin":
        """Return a view of the model with a loss whose state is its own: a plot changes it."""
        view = inference_view(self)
        view.loss = clone_loss(loss, type(self).__name__)
        return view

    def _skip_missing(self, x: dict[str, Any], add_loss_to_title: Any) -> Any:
        """Let the loss in the title skip the steps at which the target is missing."""
        if add_loss_to_title is not True and not isinstance(add_loss_to_title, Metric):
            return nullcontext()
        if not has_missing(x["encoder_target"], x["decoder_target"]):
            return nullcontext()
        return skip_missing([self.loss if add_loss_to_title is True else add_loss_to_title])
