"""Alignment of steps, patches and tokens in mLSTMTime."""

from typing import Any

import pytest
import torch
from pytorch_forecasting import TimeSeriesDataSet
from torch import Tensor, nn

from helpers.datasets import (
    HORIZON,
    collate,
    make_dataset,
    make_table,
    pick_samples,
)
from helpers.models import SilentMemory, forecast
from helpers.tolerances import assert_close
from pytorch_forecasting_mlstm import mLSTMTime


class Roll(nn.Module):
    """Replaces the memory: a token becomes the one ``places`` before it."""

    def __init__(self, places: int) -> None:
        super().__init__()
        self.places = places

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, None]:
        return tokens.roll(self.places, dims=1) - tokens, None  # the network adds the tokens


def clock_dataset(**changes: Any) -> TimeSeriesDataSet:
    """Make a dataset whose target and known variable equal the time."""
    table = make_table(n_series=2, steps=30)
    table["y"] = table["clock"] = table["t"].astype(float)
    return make_dataset(
        table,
        time_varying_known_reals=["clock"],
        target_normalizer=None,
        scalers={"clock": None},
        **changes,
    )


def times_of(x: dict[str, Any]) -> Tensor:
    """Return the time of every step of the horizon, (B, steps)."""
    return x["decoder_time_idx"].double()


def zero_weights(model: mLSTMTime) -> None:
    """Set all weights to zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()


@pytest.mark.parametrize("patch_length", [1, 3, 4])
@pytest.mark.parametrize("part", ["trend", "cycle", "season"])
def test_linear_maps_start_from_the_last_step_of_every_history(
    part: str, patch_length: int
) -> None:
    dataset = clock_dataset(min_encoder_length=3)
    # with averages over one step, all is trend; an average over 2 steps is half a step off
    widths = {"trend": (1, 1), "cycle": (2, 1), "season": (2, 2)}[part]
    model = mLSTMTime.from_dataset(
        dataset, patch_length=patch_length, moving_averages=widths, instance_normalization=False
    )
    model = model.double().eval()
    zero_weights(model)
    linear = model.network.target_encoders[0].linear
    with torch.no_grad():
        model.network.target_encoders[0].gain.fill_(1)
        for step in range(HORIZON):  # step 1 reads the last value but 0, step 2 the last but 1, ...
            getattr(linear, part).weight[step, -1 - min(step, 2)] = 1
    x, _ = collate(pick_samples(dataset, count=9))
    assert len(x["encoder_lengths"].unique()) > 1
    back = torch.arange(HORIZON).clamp_max(2)
    last = times_of(x)[:, :1] - 1
    expected = (
        last - back if part == "trend" else torch.where(back > 0, -0.5, 0.0).expand(len(last), -1)
    )
    assert_close(forecast(model, x)[0][..., 0], expected.double())


@pytest.mark.parametrize("patch_length", [1, 3, 4])
def test_amplitudes_scale_each_component_patch_by_patch(patch_length: int) -> None:
    """With a silent memory, y = Σ (1 + tanh(w p)) component, where p is the patch's position."""
    dataset = clock_dataset(min_encoder_length=3)
    model = mLSTMTime.from_dataset(
        dataset,
        hidden_size=8,
        patch_length=patch_length,
        moving_averages=(4, 2),
        amplitudes=True,  # off by default, as there is a known variable
        instance_normalization=False,
    )
    model = model.double().eval()
    zero_weights(model)
    model.network.memory, model.network.memory_norm = SilentMemory(), nn.Identity()
    model.network.token_norm = nn.Identity()
    patches = -(-HORIZON // patch_length)
    positions = torch.linspace(-1, 2, patches, dtype=torch.float64)
    slopes = torch.tensor([0.5, -1.0, 3.0], dtype=torch.float64)
    with torch.no_grad():
        model.network.target_encoders[0].gain.fill_(1)
        for linear in model.network.target_encoders[0].linear.children():
            linear.weight.normal_()
        model.network.position_embedding[-patches:, 0] = positions
        model.network.amplitude_head.weight[:, 0] = slopes
    outputs = []
    model.network.target_encoders[0].linear.register_forward_hook(
        lambda *arguments: outputs.append(arguments[-1])
    )
    x, _ = collate(pick_samples(dataset, count=9))
    actual = forecast(model, x)[0][..., 0]
    (components,) = outputs
    for step in range(HORIZON):
        expected = sum(
            (1 + (slope * positions[step // patch_length]).tanh()) * components[:, step, number]
            for number, slope in enumerate(slopes)
        )
        assert_close(actual[:, step], expected)


@pytest.mark.parametrize("patch_length", [1, 2, 3])
def test_horizon_follows_the_history_without_a_gap(patch_length: int) -> None:
    dataset = clock_dataset(min_encoder_length=patch_length, max_prediction_length=2 * patch_length)
    for places in range(2):
        model = mLSTMTime.from_dataset(
            dataset, hidden_size=8, patch_length=patch_length, instance_normalization=False
        )
        model = model.double().eval()
        zero_weights(model)
        model.network.memory, model.network.memory_norm = Roll(places), nn.Identity()
        model.network.token_norm = nn.Identity()
        with torch.no_grad():
            # A token holds the clock of every step of its patch, and the head returns it. A step of
            # the history has y, clock and mark; a step of the horizon has clock and mark.
            for step in range(patch_length):
                model.network.history_embedding.projection.weight[step, 3 * step + 1] = 1
                model.network.horizon_embedding.projection.weight[step, 2 * step] = 1
                model.network.residual_head.weight[step, step] = 1
        x, _ = collate(pick_samples(dataset, count=9))
        assert len(x["encoder_lengths"].unique()) > 1
        assert_close(forecast(model, x)[0][..., 0], times_of(x) - places * patch_length)
