"""A figure of a forecast: its components, the read weights and the time scales."""

from importlib.util import find_spec
from typing import Any

import torch
from pytorch_forecasting.utils import to_list
from torch import Tensor

from .interpretation import Interpretation

__all__ = ["plot_interpretation"]

# Okabe and Ito's colors, for color-blind readers; line styles distinguish the lines in gray
_LINES: dict[str, dict[str, Any]] = {
    "forecast": {"color": "black", "linewidth": 2.0},
    "trend": {"color": "#0072B2", "linestyle": "--"},
    "cycle": {"color": "#CC79A7", "linestyle": (0, (4, 1, 1, 1, 1, 1))},
    "season": {"color": "#E69F00", "linestyle": "-."},
    "memory": {"color": "#009E73", "linestyle": ":", "linewidth": 2.0},
}


def plot_interpretation(
    names: list[str], interpretation: Interpretation, idx: int, target: int
) -> Any:
    """Plot one sample, see :meth:`mLSTMTime.plot_interpretation`.

    Parameters
    ----------
    names : list of str
        Names of the targets.
    interpretation, idx, target
        As in the method.
    """
    if find_spec("matplotlib") is None:
        raise ImportError(
            "mLSTMTime: plot_interpretation needs matplotlib, which is not installed; "
            "pip install matplotlib."
        )
    from matplotlib import pyplot

    batch_size = len(interpretation.read_weights)
    for argument, number, size in (("idx", idx, batch_size), ("target", target, len(names))):
        if not 0 <= number < size:
            raise ValueError(
                f"mLSTMTime: {argument} must be from 0 to {size - 1}, got {number}; the batch has "
                f"{batch_size} samples of {len(names)} targets."
            )
    by_target = (
        interpretation.trend,
        interpretation.cycle,
        interpretation.season,
        interpretation.memory,
    )
    components = [to_list(component)[target][idx] for component in by_target]

    figure, (top, middle, bottom) = pyplot.subplots(
        3, 1, figsize=(8, 9), layout="constrained", height_ratios=[3, 3, 2]
    )
    _plot_components(top, components, names[target])
    # of the last cell, averaged over heads
    weights = interpretation.read_weights[idx, -1].mean(0).float().cpu()
    _plot_read_weights(figure, middle, weights, interpretation.history)
    _plot_time_scales(bottom, interpretation.time_scales[idx], interpretation.history)
    return figure


def _plot_components(axes: Any, components: list[Tensor], name: str) -> None:
    column = components[0].shape[-1] // 2  # the median of quantiles, or the only one
    steps = range(1, len(components[0]) + 1)
    total = torch.stack(components).sum(0)
    for (label, style), line in zip(_LINES.items(), [total, *components], strict=True):
        axes.plot(steps, line[:, column].float().cpu(), label=label, **style)
    axes.axhline(0, color="#999999", linewidth=0.8)
    axes.set(
        xlabel="step of the horizon",
        ylabel="normalized value",
        title=f"{name}: components of the forecast",
    )
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.2 * (high - low))  # room for the legend above the lines
    axes.legend(frameon=False, loc="upper center", ncols=5)


def _plot_read_weights(figure: Any, axes: Any, weights: Tensor, history: int) -> None:
    """Plot weights (horizon, history + horizon) as an image."""
    horizon = len(weights)
    limit = max(float(weights.abs().max()), torch.finfo(weights.dtype).tiny)
    image = axes.imshow(
        weights.numpy(),
        aspect="auto",
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        interpolation="none",
        extent=(-history, horizon, horizon + 0.5, 0.5),
    )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(
        xlabel="step being read (0 = start of the forecast)",
        ylabel="step of the horizon",
        title="Read weights of the memory, mean over heads",
    )
    figure.colorbar(image, ax=axes, pad=0.01)


def _plot_time_scales(axes: Any, time_scales: Tensor, history: int) -> None:
    """Plot time scales (num_layers, NH) on a logarithmic axis with plain numbers."""
    from matplotlib import ticker

    scales = time_scales.float().cpu()
    heads = range(1, scales.shape[1] + 1)
    markers = "osD^vP*X"
    for number, layer in enumerate(scales):
        axes.plot(
            heads,
            layer,
            linestyle="none",
            marker=markers[number % len(markers)],
            color="#0072B2",
            label=f"cell {number + 1}" if len(scales) > 1 else None,
        )
    axes.axhline(history, color="#999999", linewidth=0.8, linestyle="--", label="history length")
    axes.set(
        yscale="log",
        xticks=list(heads),
        xlabel="head",
        ylabel="steps",
        title="Time scale: steps until a memory decays to 1/e",
    )
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.5, high * 1.5)  # room for a tick even if all heads are equal
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.legend(frameon=False, loc="center right")
