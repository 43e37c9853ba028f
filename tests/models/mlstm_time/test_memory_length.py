"""A memory that reads only the end of the history, while the linear maps read all of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytorch_forecasting import NegativeBinomialDistributionLoss, TimeSeriesDataSet
from torch import Tensor

from helpers.checkpoints import save
from helpers.datasets import collate, configured, make_dataset, pick_samples
from helpers.models import make_model
from helpers.tolerances import assert_close
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.models.base.padding import align_right
from pytorch_forecasting_mlstm.models.mlstm_time._network import NetworkInputs, mLSTMTimeNetwork
from pytorch_forecasting_mlstm.models.mlstm_time.adapter import network_inputs

NAMES = (
    "no covariates",
    "all covariates",
    "all lengths",
    "lags",
    "target scales",
    "encoder normalizer",
    "log",
    "categorical target",
    "mixed targets and covariates",
)


def read_inputs(model: mLSTMTime, dataset: TimeSeriesDataSet) -> NetworkInputs:
    x, _ = collate(pick_samples(dataset))
    return network_inputs(x, model.reference_scales(x))


def cut_history(inputs: NetworkInputs, steps: int) -> NetworkInputs:
    """Return the same samples with the last steps of their histories only."""

    def cut(x: Tensor) -> Tensor:
        shifts = (inputs.history_lengths - steps).clamp_min(0)
        rows = [sample[shift : shift + steps] for sample, shift in zip(x, shifts, strict=True)]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

    return inputs._replace(
        target_histories=[cut(history) for history in inputs.target_histories],
        history_lengths=inputs.history_lengths.clamp_max(steps),
        history_reals=cut(inputs.history_reals),
        history_categoricals=cut(inputs.history_categoricals),
    )


def make_pair(dataset: TimeSeriesDataSet, steps: int, **options: Any) -> tuple[mLSTMTime, ...]:
    """Make a model whose memory reads so many steps, and one of histories as long as that.

    The linear maps are those of the second one: of a longer history, they map the same steps.
    """
    options = {"amplitudes": False, **options}
    long = make_model(dataset, memory_length=steps, **options)
    arguments = {
        **long.hparams,
        "loss": long.loss,
        "output_transformer": long.output_transformer,
        "max_encoder_length": steps,
        "memory_length": None,
        "moving_averages": (3, 3),
    }
    short = mLSTMTime(**arguments).double().eval()
    weights = long.network.state_dict()
    for name in [name for name in weights if ".linear." in name]:
        own = short.network.state_dict()[name]
        width = min(own.shape[1], steps)  # the first patch may begin before the history
        own = weights[name.replace("cycle", "trend").replace("season", "trend")][:, -own.shape[1] :]
        own[:, :-width] = 0
        weights[name] = own
    short.network.load_state_dict(weights)
    for ours, theirs in zip(long.network.linear_maps(), short.network.linear_maps(), strict=True):
        ours.start_at(theirs.trend.weight.T)
    return long, short


def assert_same_forecasts(one: Any, other: Any) -> None:
    for a, b in zip(one, other, strict=True):
        assert_close(a.output, b.output)
        assert_close(a.target_scale, b.target_scale)


@pytest.mark.parametrize("patch_length", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_forecast_is_that_of_a_shorter_history(name: str, patch_length: int) -> None:
    dataset = configured(name)
    long, short = make_pair(dataset, 5, patch_length=patch_length)
    inputs = read_inputs(long, dataset)
    with torch.no_grad():
        assert_same_forecasts(long.network(inputs), short.network(cut_history(inputs, 5)))


def test_counts_are_scaled_by_what_the_memory_reads() -> None:
    dataset = configured("count")
    long, short = make_pair(dataset, 5, loss=NegativeBinomialDistributionLoss())
    inputs = read_inputs(long, dataset)
    with torch.no_grad():
        assert_same_forecasts(long.network(inputs), short.network(cut_history(inputs, 5)))


@pytest.mark.parametrize("name", NAMES)
def test_linear_maps_read_all_and_the_memory_only_the_end(name: str) -> None:
    """What is before the end of the history reaches the components, but not the residual."""
    dataset = configured(name)
    model = make_model(dataset, memory_length=3)
    inputs = read_inputs(model, dataset)
    full = inputs.history_lengths == dataset.max_encoder_length
    changed = [history.clone() for history in inputs.target_histories]
    for history in changed:
        is_class = not history.is_floating_point()
        history[full, 0] = 1 - history[full, 0].clamp_max(1) if is_class else 7.5
    others = inputs._replace(target_histories=changed)
    (before, memory), (after, other_memory) = (model.network.decompose(x) for x in (inputs, others))
    for a, b in zip(memory.residuals, other_memory.residuals, strict=True):
        assert a.equal(b)
    for a, b in zip(before, after, strict=True):
        assert a.target_scale.equal(b.target_scale)
        differs = (a.components != b.components).flatten(1).any(1)
        assert differs.equal(full)


def test_missing_end_is_scaled_by_the_whole_history() -> None:
    dataset = configured("no covariates")
    model, whole = make_model(dataset, memory_length=3), make_model(dataset)
    inputs = read_inputs(model, dataset)
    histories = [align_right(x, inputs.history_lengths, 8) for x in inputs.target_histories]
    histories[0][:, -3:] = torch.nan
    inputs = inputs._replace(
        target_histories=histories, history_lengths=torch.full_like(inputs.history_lengths, 8)
    )
    ours, theirs = (m.network.decompose(inputs)[0][0] for m in (model, whole))
    assert_close(ours.target_scale, theirs.target_scale)
    assert ours.add_up().output.isfinite().all()


def test_read_weights_are_those_of_the_steps_that_the_memory_reads() -> None:
    dataset = configured("all covariates")
    model = make_model(dataset, memory_length=5, patch_length=2)
    x, _ = collate(pick_samples(dataset))
    interpretation = model.interpret_output(x)
    assert interpretation.history == 5
    assert interpretation.read_weights.shape[-1] == 5 + dataset.max_prediction_length
    model.plot_interpretation(interpretation)


def test_defaults_follow_what_the_memory_reads() -> None:
    dataset = make_dataset(max_encoder_length=8)
    arguments = {**mLSTMTime.from_dataset(dataset).hparams, "max_encoder_length": 600}
    for name in ("moving_averages", "patch_length", "memory_length"):
        arguments[name] = None
    long, short = mLSTMTime(**arguments), mLSTMTime(**{**arguments, "memory_length": 60})
    assert (long.hparams.memory_length, long.hparams.patch_length) == (600, 16)
    assert (short.hparams.memory_length, short.hparams.patch_length) == (60, 1)
    assert long.hparams.moving_averages == short.hparams.moving_averages
    assert long.random_sign_flip and not short.random_sign_flip


def test_checkpoint_keeps_the_length(tmp_path: Any) -> None:
    model = make_model(configured("no covariates"), memory_length=5)
    loaded = mLSTMTime.load_from_checkpoint(save(model, tmp_path / "model.ckpt"))
    assert loaded.hparams.memory_length == loaded.network.memory_length == 5
    assert isinstance(loaded.network, mLSTMTimeNetwork)
