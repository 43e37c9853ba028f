"""Looking inside a forecast: its parts, what it reads from the memory, and how long that lasts."""

from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from pytorch_forecasting.metrics import MultiLoss
from pytorch_forecasting.utils import to_list
from torch import Tensor, nn

__all__ = ["Interpretation", "interpret", "plot_interpretation"]

Parts = Tensor | list[Tensor]  # a list for several targets, as in the model's prediction

# Okabe and Ito's colors, told apart by the color-blind; line styles tell them apart in gray
_LINES: dict[str, dict[str, Any]] = {
    "forecast": {"color": "black", "linewidth": 2.0},
    "trend": {"color": "#0072B2", "linestyle": "--"},
    "cycle": {"color": "#CC79A7", "linestyle": (0, (4, 1, 1, 1, 1, 1))},
    "season": {"color": "#E69F00", "linestyle": "-."},
    "memory": {"color": "#009E73", "linestyle": ":", "linewidth": 2.0},
}


class Interpretation(NamedTuple):
    """What a forecast is made of.

    The parts are in the space in which the model adds them up: of a sample brought to its own
    scale, before a transformation of the normalizer is undone, with one number for each quantile,
    parameter or class. ``transform_output(trend + cycle + season + memory, target_scale)`` is
    the prediction.

    Attributes
    ----------
    prediction : Tensor or list of Tensor
        The forecast, (B, horizon, output_size), as :meth:`mLSTMTime.forward` gives it.
    trend, cycle, season, memory : Tensor or list of Tensor
        The parts of the linear paths, with the amplitudes that the memory gives them, and what the
        memory adds, of the same shape.
    amplitudes : Tensor or list of Tensor
        What the memory multiplies trend, cycle and season by, from 0 to 2, (B, horizon, 3); 1 where
        the model has no amplitudes.
    target_scale : Tensor or list of Tensor
        What brings the sum of the parts to the scale of the data, (B, 2).
    read_weights : Tensor
        How much of the value that the memory stored at each step is read for each step of the
        horizon, (B, num_layers, NH, horizon, history + horizon). The history ends at
        ``history``; where it is shorter, the weights before it are 0. The weights of a patch are
        shared equally by its steps. They may be negative.
    time_scales : Tensor
        Steps after which a memory has faded to 1/e at the mean of its forget gate over the sample,
        (B, num_layers, NH).
    history : int
        Steps of history in ``read_weights``.
    """

    prediction: Parts
    trend: Parts
    cycle: Parts
    season: Parts
    memory: Parts
    amplitudes: Parts
    target_scale: Parts
    read_weights: Tensor
    time_scales: Tensor
    history: int


@torch.no_grad()
def interpret(model: Any, x: dict[str, Any]) -> Interpretation:
    """Run a model on a batch and collect what passes between its parts."""
    seen: dict[nn.Module, tuple[Any, ...]] = {}

    def keep(module: nn.Module, inputs: Any, kwargs: Any, output: Any) -> None:
        seen[module] = (*inputs, kwargs, output)

    hooks = [
        module.register_forward_hook(keep, with_kwargs=True)
        for module in (*model.targets, model.memory, model.head, model.amplitude_head)
        if module is not None
    ]
    training = model.training
    model.eval()
    try:
        prediction = model(x).prediction
        tokens, kwargs, _ = seen[model.memory]
        weights, log_f = model.memory.read_weights(tokens, kwargs["mask"])
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()

    horizon = x["decoder_cont"].shape[1]
    pasts = [seen[target][-1] for target in model.targets]
    parts: list[tuple[Tensor, ...]] = [
        (
            *(past.paths[:, :horizon] * amplitudes[:, :horizon]).unbind(-1),
            added[:, :horizon],
            amplitudes[:, :horizon, 0].expand(len(added), -1, -1),
            scale if past.scale is None else past.scale.target_scale,
        )
        for past, added, amplitudes, scale in zip(
            pasts,
            model.unfold_added(seen[model.head][-1]),
            model.unfold_amplitudes(
                seen[model.amplitude_head][-1] if model.amplitude_head else None
            ),
            to_list(x["target_scale"]),
            strict=True,
        )
    ]
    several = isinstance(model.loss, MultiLoss)
    trend, cycle, season, memory, amplitudes, scales = (
        list(each) if several else each[0] for each in zip(*parts, strict=True)
    )
    steps = _steps_of_tokens(model, tokens)
    history = int(model.hparams.max_encoder_length)
    return Interpretation(
        prediction=prediction,
        trend=trend,
        cycle=cycle,
        season=season,
        memory=memory,
        amplitudes=amplitudes,
        target_scale=scales,
        read_weights=_by_step(model, weights, steps, history, horizon),
        time_scales=_time_scales(log_f, steps, kwargs["mask"]),
        history=history,
    )


def _steps_of_tokens(model: Any, tokens: Tensor) -> Tensor:
    """Count the steps that each token stands for."""
    P, future = model.history_tokens.patch_length, model.future_tokens.patch_length
    before = model.history_steps // P
    after = tokens.shape[1] - before
    return torch.tensor([P] * before + [future] * after, device=tokens.device)


def _by_step(model: Any, weights: Tensor, steps: Tensor, history: int, horizon: int) -> Tensor:
    """Spread weights (num_layers, B, NH, tokens, tokens) over steps, sample first."""
    before = model.history_steps // model.history_tokens.patch_length
    reads = weights[..., before:, :].repeat_interleave(steps[before:], dim=-2)[..., :horizon, :]
    spread = (reads / steps).repeat_interleave(steps, dim=-1)
    first = model.history_steps - history  # whole patches begin before the history may
    return spread[..., first : model.history_steps + horizon].transpose(0, 1)


def _time_scales(log_f: Tensor, steps: Tensor, mask: Tensor) -> Tensor:
    """Turn log forget gates (num_layers, B, NH, tokens) into steps, (B, num_layers, NH)."""
    total = (steps * mask).sum(-1).to(log_f.dtype)  # (B,)
    forgotten = -log_f.sum(-1)  # 0 at padding
    return (total[:, None] / forgotten.clamp_min(torch.finfo(log_f.dtype).tiny)).transpose(0, 1)


def plot_interpretation(model: Any, found: Interpretation, idx: int, target: int) -> Any:
    """Draw one sample: parts, read weights and time scales."""
    if find_spec("matplotlib") is None:
        raise ImportError(
            "mLSTMTime: plot_interpretation draws with matplotlib, which is not installed; "
            "pip install matplotlib."
        )
    from matplotlib import pyplot, ticker

    names = to_list(model.hparams.target)
    B, horizon = found.read_weights.shape[0], found.read_weights.shape[3]
    for what, number, size in (("idx", idx, B), ("target", target, len(names))):
        if not 0 <= number < size:
            raise ValueError(
                f"mLSTMTime: {what} must be from 0 to {size - 1}, got {number}; the batch has "
                f"{B} samples of {len(names)} targets."
            )
    drawn = (found.trend, found.cycle, found.season, found.memory)
    parts = [to_list(part)[target][idx] for part in drawn]
    column = parts[0].shape[-1] // 2  # the median of quantiles; of a point there is one
    lines = [sum(parts), *parts]

    figure, axes = pyplot.subplots(
        3, 1, figsize=(8, 9), layout="constrained", height_ratios=[3, 3, 2]
    )
    steps = range(1, horizon + 1)
    for (name, style), line in zip(_LINES.items(), lines, strict=True):
        axes[0].plot(steps, line[:, column].float().cpu(), label=name, **style)
    axes[0].axhline(0, color="#999999", linewidth=0.8)
    axes[0].set(
        xlabel="step of the horizon",
        ylabel="scale of the sample",
        title=f"{names[target]}: parts of the forecast",
    )
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low, high + 0.2 * (high - low))  # room for the legend, above the lines
    axes[0].legend(frameon=False, loc="upper center", ncols=5)

    # averaged over heads, of the last cell
    weights = found.read_weights[idx, -1].mean(0).float().cpu()
    most = max(float(weights.abs().max()), torch.finfo(weights.dtype).tiny)
    image = axes[1].imshow(
        weights.numpy(),
        aspect="auto",
        cmap="RdBu_r",
        vmin=-most,
        vmax=most,
        interpolation="none",
        extent=(-found.history, horizon, horizon + 0.5, 0.5),
    )
    axes[1].axvline(0, color="black", linewidth=0.8)
    axes[1].set(
        xlabel="step that is read (0: the forecast begins)",
        ylabel="step of the horizon",
        title="Read weights of the memory, mean of the heads",
    )
    figure.colorbar(image, ax=axes[1], pad=0.01)

    scales = found.time_scales[idx].float().cpu()
    heads = range(1, scales.shape[1] + 1)
    markers = "osD^vP*X"
    for number, layer in enumerate(scales):
        axes[2].plot(
            heads,
            layer,
            linestyle="none",
            marker=markers[number % len(markers)],
            color="#0072B2",
            label=f"cell {number + 1}" if len(scales) > 1 else None,
        )
    axes[2].axhline(
        found.history, color="#999999", linewidth=0.8, linestyle="--", label="length of the history"
    )
    axes[2].set(
        yscale="log",
        xticks=list(heads),
        xlabel="head",
        ylabel="steps",
        title="Time scale: steps until a memory has faded to 1/e",
    )
    low, high = axes[2].get_ylim()
    axes[2].set_ylim(low / 1.5, high * 1.5)  # wide enough for a tick, however close the heads are
    axes[2].yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes[2].yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes[2].yaxis.set_minor_formatter(ticker.NullFormatter())
    axes[2].legend(frameon=False, loc="center right")
    return figure
