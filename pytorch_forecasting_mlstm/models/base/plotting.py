"""The host's plots of predictions, where it would mix targets up or fail."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pytorch_forecasting.data import NaNLabelEncoder
from pytorch_forecasting.models.base import BaseModelWithCovariates
from pytorch_forecasting.utils import to_list

__all__ = ["PlottedPredictions"]


class PlottedPredictions(BaseModelWithCovariates):
    """A model of the host that plots several targets apart: the host draws all in one picture."""

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
        """Plot a prediction beside what was observed.

        Parameters
        ----------
        x : dict
            Batch.
        out : Output
            What the model returned for it.
        idx : int, default 0
            Sample to plot.
        add_loss_to_title : bool, Metric or Tensor, default False
            Whether the title says the loss, or which one, or the losses of all samples.
        show_future_observed : bool, default True
            Whether to draw what was observed in the horizon.
        ax : matplotlib.axes.Axes or list of these, optional
            Where to draw; for several targets a list, one for each.
        **kwargs
            ``quantiles_kwargs`` and ``prediction_kwargs`` of ``BaseModel.plot_prediction``.

        Returns
        -------
        Figure or list of Figure
            One for each target, if they are several.

        Raises
        ------
        ValueError
            If there are not as many axes as targets.
        """
        names, shown = to_list(self.hparams.target), (add_loss_to_title, show_future_observed)
        if len(names) == 1:
            return super().plot_prediction(x, out, idx, *shown, ax, **kwargs)
        axes = [None] * len(names) if ax is None else list(to_list(ax))
        if len(axes) != len(names):
            raise ValueError(
                f"mLSTMTime: ax must be a list of axes, one for each of the targets {names}, got "
                f"{len(axes)}; leave it out, and every target gets a figure of its own."
            )
        figures = []
        for number, (name, own) in enumerate(zip(names, axes, strict=True)):
            of_one = {key: x[key][number] for key in ("encoder_target", "decoder_target")}
            with self._for_one_target(number):
                figure = super().plot_prediction(
                    {**x, **of_one},
                    {**out, "prediction": out["prediction"][number]},
                    idx,
                    *shown,
                    own,
                    **kwargs,
                )
            (figure.axes[0] if own is None else own).set_ylabel(name)
            figures.append(figure)
        return figures

    def calculate_prediction_actual_by_variable(
        self, x: dict[str, Any], y_pred: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Average forecasts and what was observed by the values of every variable.

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
            What ``plot_prediction_actual_by_variable`` takes.

        Raises
        ------
        ValueError
            If there are several targets, or a categorical one, of which there are no averages.
        """
        target, normalizer = self.hparams.target, self.output_transformer
        if not isinstance(target, str) or isinstance(normalizer, NaNLabelEncoder):
            raise ValueError(
                f"mLSTMTime: averages by variable are of a single real target, got {target!r} with "
                f"{type(normalizer).__name__}; take them of forecast() or predict() instead."
            )
        return super().calculate_prediction_actual_by_variable(x, y_pred, *args, **kwargs)

    @contextmanager
    def _for_one_target(self, number: int) -> Iterator[None]:
        """Let the model have the loss of one target."""
        loss = self.loss
        self.loss = loss.metrics[number]
        try:
            yield
        finally:
            self.loss = loss
