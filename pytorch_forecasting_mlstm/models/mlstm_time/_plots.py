"""The host's plot of a prediction, with a picture for each of several targets."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pytorch_forecasting.models.base import BaseModel
from pytorch_forecasting.utils import to_list

__all__ = ["PlottedPredictions"]


class PlottedPredictions(BaseModel):
    """A model of the host that plots several targets apart: the host draws all in one picture."""

    loss: Any

    def plot_prediction(
        self, x: dict[str, Any], out: Any, idx: int = 0, *args: Any, ax: Any = None, **kwargs: Any
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
        ax : matplotlib.axes.Axes or list of these, optional
            Where to draw; for several targets a list, one for each.
        *args, **kwargs
            Arguments of ``BaseModel.plot_prediction``.

        Returns
        -------
        Figure or list of Figure
            One for each target, if they are several.

        Raises
        ------
        ValueError
            If there are not as many axes as targets.
        """
        names = to_list(self.hparams.target)
        if len(names) == 1:
            return super().plot_prediction(x, out, idx, *args, ax=ax, **kwargs)
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
                    *args,
                    ax=own,
                    **kwargs,
                )
            (figure.axes[0] if own is None else own).set_ylabel(name)
            figures.append(figure)
        return figures

    @contextmanager
    def _for_one_target(self, number: int) -> Iterator[None]:
        """Let the model have the loss of one target."""
        loss = self.loss
        self.loss = loss.metrics[number]
        try:
            yield
        finally:
            self.loss = loss
