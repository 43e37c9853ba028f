"""Interpret a forecast: its components, the read weights of the memory, and its time scales."""

from typing import Any, NamedTuple

import torch
from pytorch_forecasting.metrics import MultiLoss
from torch import Tensor

from ..base.checks.dataset import check_batch
from ..base.inference import inference_view
from ._network import mLSTMTimeNetwork
from .adapter import network_inputs

__all__ = ["Interpretation", "check_arguments", "interpret"]

PerTarget = Tensor | list[Tensor]  # a list for several targets, as in the model's prediction


class Interpretation(NamedTuple):
    """The components of a forecast, and what it reads from the memory.

    Components are in the space in which the model adds them: scaled by the history of the sample,
    before the transformation of the normalizer is inverted, with one number per quantile, parameter
    or class. ``transform_output(trend + cycle + season + memory, target_scale)`` is the prediction.

    Attributes
    ----------
    prediction : Tensor or list of Tensor
        The forecast, (B, horizon, output_size), as returned by :meth:`mLSTMTime.forward`.
    trend, cycle, season, memory : Tensor or list of Tensor
        The linear components multiplied by their amplitudes, and the correction that the memory
        adds, each of the same shape.
    amplitudes : Tensor or list of Tensor
        Factors from 0 to 2 by which the memory scales trend, cycle and season, (B, horizon, 3); 1
        if the model has no amplitudes.
    target_scale : Tensor or list of Tensor
        Center and scale that transform the sum of the components to the scale of the data, (B, 2).
    read_weights : Tensor
        Weight with which each step of the horizon reads the value that the memory stored at each
        step, (B, num_layers, NH, horizon, history + horizon). The steps of the history that it
        reads come first; if there are fewer, the weights before their start are 0. The steps of a
        patch share its weight equally. Weights may be negative.
    time_scales : Tensor
        Steps after which a memory has decayed to 1/e, for the mean of its forget gate over the
        sample, (B, num_layers, NH).
    history : int
        Steps of history in ``read_weights``.
    """

    prediction: PerTarget
    trend: PerTarget
    cycle: PerTarget
    season: PerTarget
    memory: PerTarget
    amplitudes: PerTarget
    target_scale: PerTarget
    read_weights: Tensor
    time_scales: Tensor
    history: int


def check_arguments(x: Any, unsupported: dict[str, Any]) -> None:
    """Raise unless ``interpret_output`` gets the inputs of a batch, and nothing else."""
    if isinstance(x, dict) and not unsupported:
        return
    got = [type(x).__name__, *(f"{name}={value!r}" for name, value in unsupported.items())]
    raise TypeError(
        f"mLSTMTime.interpret_output: takes the inputs of a batch and nothing else, got "
        f"{', '.join(got)}; pass x of predict(..., mode='raw', return_x=True), and reduce the "
        f"result yourself: it holds every sample, interpretation.time_scales.mean(0) for example."
    )


@torch.no_grad()
def interpret(model: Any, x: dict[str, Any]) -> Interpretation:
    """Decompose the forecast of a batch, see :meth:`mLSTMTime.interpret_output`."""
    check_batch(model, x)
    model = inference_view(model)
    network: mLSTMTimeNetwork = model.network
    parts, memory = network.decompose(network_inputs(x, model.reference_scales(x)))
    prediction = model.rescale_forecasts([part.add_up() for part in parts])
    weights, log_f = network.memory.read_weights(memory.tokens, memory.mask)

    horizon = x["decoder_cont"].shape[1]
    by_target: list[tuple[Tensor, ...]] = [
        (
            *part.components.unbind(-1),
            part.residual,
            part.amplitudes[:, :, 0].expand(len(part.residual), -1, -1),
            part.target_scale,
        )
        for part in parts
    ]
    several = isinstance(model.loss, MultiLoss)
    trend, cycle, season, residual, amplitudes, target_scale = (
        list(tensors) if several else tensors[0] for tensors in zip(*by_target, strict=True)
    )
    steps = _steps_of_tokens(network, memory.tokens)
    history = network.memory_length
    return Interpretation(
        prediction=prediction,
        trend=trend,
        cycle=cycle,
        season=season,
        memory=residual,
        amplitudes=amplitudes,
        target_scale=target_scale,
        read_weights=_spread_over_steps(network, weights, steps, history, horizon),
        time_scales=_time_scales(log_f, steps, memory.mask),
        history=history,
    )


def _steps_of_tokens(network: mLSTMTimeNetwork, tokens: Tensor) -> Tensor:
    """Return the number of steps in each token's patch."""
    P, S = network.history_embedding.patch_length, network.horizon_embedding.patch_length
    before = network.memory_steps // P
    after = tokens.shape[1] - before
    return torch.tensor([P] * before + [S] * after, device=tokens.device)


def _spread_over_steps(
    network: mLSTMTimeNetwork, weights: Tensor, steps: Tensor, history: int, horizon: int
) -> Tensor:
    """Spread weights (num_layers, B, NH, tokens, tokens) over steps, with the sample first."""
    before = network.memory_steps // network.history_embedding.patch_length
    reads = weights[..., before:, :].repeat_interleave(steps[before:], dim=-2)[..., :horizon, :]
    spread = (reads / steps).repeat_interleave(steps, dim=-1)
    first = network.memory_steps - history  # the first patch may begin before the history
    return spread[..., first : network.memory_steps + horizon].transpose(0, 1)


def _time_scales(log_f: Tensor, steps: Tensor, mask: Tensor) -> Tensor:
    """Convert log forget gates (num_layers, B, NH, tokens) to steps, (B, num_layers, NH)."""
    total = (steps * mask).sum(-1).to(log_f.dtype)  # (B,)
    forgotten = -log_f.sum(-1)  # padding adds 0
    return (total[:, None] / forgotten.clamp_min(torch.finfo(log_f.dtype).tiny)).transpose(0, 1)
