"""Directions, lengths, single sequences and norms of heads: the layer equals stepping its cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from helpers.layers import (
    GRADIENT_TOLERANCE,
    draw_input,
    draw_state,
    gradients,
    make_layer,
    parametrize_masks,
    step_cells,
)
from helpers.tolerances import assert_close, assert_identical, assert_raises_mentioning
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.cell import mLSTMCell
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.layer import mLSTMLayer

OPTIONS: dict[str, dict[str, Any]] = {
    "bidirectional": {"bidirectional": True, "num_layers": 2},
    "bidirectional, no residual": {
        "bidirectional": True,
        "num_layers": 2,
        "residual_conn": False,
        "num_heads": None,
    },
    "norm of heads": {"norm_heads": True, "num_heads": 2, "num_layers": 2},
    "both": {"bidirectional": True, "norm_heads": True, "num_heads": 1, "layer_norm": False},
}
parametrize_options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@parametrize_options
@pytest.mark.parametrize("T", [1, 40])
def test_layer_matches_a_loop_over_its_cells(options: dict[str, Any], T: int) -> None:
    """Outputs, states and all gradients, those of the initial state included."""
    layer = make_layer(**options)
    x, state = draw_input(T).requires_grad_(), draw_state(layer)
    inputs = [x, *state, *layer.parameters()]
    result, expected = layer(x, state), step_cells(layer, x, state)
    assert_close(result, expected)
    assert_close(gradients(result, inputs), gradients(expected, inputs), GRADIENT_TOLERANCE)


@parametrize_masks
@pytest.mark.parametrize("options", [OPTIONS["bidirectional"], OPTIONS["both"]], ids=["2", "both"])
def test_masked_layer_matches_a_masked_loop(
    options: dict[str, Any], draw_mask: Callable[[], Tensor]
) -> None:
    layer, mask = make_layer(**options), draw_mask()
    x, state = draw_input(), draw_state(layer)
    inputs = [*state, *layer.parameters()]
    result, expected = layer(x, state, mask), step_cells(layer, x, state, mask)
    assert_close(result, expected)
    assert_close(gradients(result, inputs), gradients(expected, inputs), GRADIENT_TOLERANCE)


def test_single_precision_matches_double() -> None:
    layer = make_layer(**OPTIONS["both"])
    x = draw_input()
    expected = layer(x)[0]
    assert_close(layer.float()(x.float())[0], expected.float(), 1e-4)


# --- both directions


def test_states_are_stacked_as_in_torch() -> None:
    """The shapes of output and states are those of ``nn.LSTM``."""
    options = {"num_layers": 3, "bidirectional": True}
    expected, (h_expected, _) = nn.LSTM(3, 8, **options).double()(draw_input())
    output, (h, c, n) = make_layer(**options)(draw_input())
    assert output.shape == expected.shape
    assert h.shape == n.shape == h_expected.shape and c.shape[:2] == h.shape[:2]


def test_backward_cell_starts_at_the_last_valid_step() -> None:
    """Each padded sample gives what it gives alone, as packed sequences do in ``nn.LSTM``."""
    layer, lengths = make_layer(**OPTIONS["bidirectional"]), [31, 7, 0, 1]
    x = draw_input()
    output, state = layer(x, lengths=lengths)
    for b, length in enumerate(lengths):
        sample = slice(b, b + 1)
        alone, alone_state = layer(x[:length, sample])
        assert_close(
            (output[:length, sample], tuple(part[:, sample] for part in state)),
            (alone, alone_state),
        )
        assert not output[length:, sample].any()


def test_directions_see_past_and_future() -> None:
    layer = make_layer(bidirectional=True)
    x = draw_input().requires_grad_()
    output = layer(x)[0]
    for units, before, after in ((slice(0, 8), True, False), (slice(8, 16), False, True)):
        (grad,) = torch.autograd.grad(output[15, :, units].sum(), x, retain_graph=True)
        assert bool(grad[:15].any()) == before and bool(grad[16:].any()) == after


def test_forward_cells_keep_their_names_in_the_state_dict() -> None:
    one = set(mLSTMLayer(3, 8, num_layers=2).state_dict())
    both = set(mLSTMLayer(3, 8, num_layers=2, bidirectional=True).state_dict())
    assert one == {name for name in both if name.startswith("cells.")}


@pytest.mark.parametrize("padded", [False, True])
def test_read_weights_of_both_directions_give_the_output(padded: bool) -> None:
    layer = make_layer(bidirectional=True)
    x = draw_input()
    lengths = [31, 7, 1, 12] if padded else None
    mask = None if lengths is None else torch.arange(31)[:, None] < torch.tensor(lengths)
    weights, log_f = layer.read_weights(x, lengths=lengths)
    assert weights.shape == (2, 4, 4, 31, 31) and log_f.shape == (2, 4, 4, 31)
    outputs = []
    for index, cell in enumerate((*layer.cells, *layer.reverse_cells)):
        _, _, v, _, _, o = cell.project(x.transpose(0, 1))
        h = torch.einsum("bntl,blnv->btnv", weights[index], v) * o
        outputs.append(h.flatten(2))
    expected = torch.cat(outputs, -1).transpose(0, 1)
    if mask is not None:
        expected = expected.where(mask[..., None], 0.0)
    assert_close(layer(x, mask=mask)[0], expected)
    later = torch.ones(31, 31, dtype=torch.bool).triu(1)
    assert not weights[0][..., later].any() and not weights[1][..., later.mT].any()


# --- lengths


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("form", [list, tuple, torch.tensor], ids=["list", "tuple", "tensor"])
def test_lengths_are_a_mask(form: Callable[[list[int]], Any], batch_first: bool) -> None:
    layer, lengths = make_layer(batch_first=batch_first), [31, 0, 5, 30]
    mask = torch.arange(31)[:, None] < torch.tensor(lengths)
    x = draw_input()
    if batch_first:
        x, mask = x.transpose(0, 1), mask.mT
    assert_identical(layer(x, lengths=form(lengths)), layer(x, mask=mask))
    weights, expected = layer.read_weights(x, lengths=form(lengths)), layer.read_weights(x, mask)
    assert_identical(weights, expected)


def test_lengths_mean_what_they_mean_in_packed_sequences() -> None:
    lstm, layer, lengths = nn.LSTM(3, 8).double(), make_layer(), torch.tensor([31, 9, 4, 1])
    packed = pack_padded_sequence(draw_input(), lengths)
    expected, _ = pad_packed_sequence(lstm(packed)[0])
    output, _ = layer(draw_input(), lengths=lengths)
    assert torch.equal(output.any(-1), expected.any(-1))


@pytest.mark.parametrize(
    "lengths, words",
    [
        ([1, 2, 3, 32], ["lengths", "0 to 31", "32"]),
        ([1, 2, -3, 4], ["lengths", "0 to 31", "-3"]),
        ([1, 2, 3], ["lengths", "(4,)", "(3,)"]),
        (torch.ones(4), ["lengths", "integers", "torch.float32", ".long()"]),
        (torch.ones(4, dtype=torch.bool), ["lengths", "integers", "torch.bool"]),
        (torch.ones(4, 1, dtype=torch.long), ["lengths", "(4,)", "(4, 1)"]),
        ([1.0, 2, 3, 4], ["lengths", "ints"]),
        (5, ["lengths", "list of ints", "5"]),
    ],
)
def test_invalid_lengths_raise(lengths: Any, words: list[str]) -> None:
    assert_raises_mentioning(lambda: make_layer()(draw_input(), lengths=lengths), *words)


def test_lengths_and_mask_exclude_each_other() -> None:
    mask = torch.ones(31, 4, dtype=torch.bool)
    assert_raises_mentioning(
        lambda: make_layer()(draw_input(), mask=mask, lengths=[1, 2, 3, 4]), "mask", "lengths"
    )


# --- one sequence without a batch


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("options", [{}, OPTIONS["both"]], ids=["default", "both"])
def test_one_sequence_is_a_batch_of_one(options: dict[str, Any], batch_first: bool) -> None:
    layer = make_layer(**{"num_layers": 2, "batch_first": batch_first} | options)
    x, state, mask = draw_input(batch=1), draw_state(layer, batch=1), torch.rand(31, 1) < 0.6
    batch = (x.transpose(0, 1), mask.mT) if batch_first else (x, mask)
    for given in (None, mask):
        output, after = layer(batch[0], state, None if given is None else batch[1])
        expected = (output.squeeze(0 if batch_first else 1), tuple(p.squeeze(1) for p in after))
        single = layer(
            x[:, 0], tuple(part[:, 0] for part in state), None if given is None else mask[:, 0]
        )
        assert_identical(single, expected)
    weights, log_f = layer.read_weights(batch[0])
    assert_identical(layer.read_weights(x[:, 0]), (weights.squeeze(1), log_f.squeeze(1)))


def test_one_sequence_without_steps_returns_the_state() -> None:
    layer = make_layer()
    state = tuple(part[:, 0] for part in draw_state(layer, batch=1))
    output, after = layer(torch.zeros(0, 3, dtype=torch.float64), state)
    assert output.shape == (0, 8)
    assert_identical(after, state)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"lengths": [31]}, ["lengths", "(31, 3)", "slice"]),
        ({"mask": torch.ones(31, 1, dtype=torch.bool)}, ["mask", "(31,)", "(31, 1)"]),
        ({"state": tuple(torch.zeros(1, 1, 8) for _ in range(3))}, ["state h", "(1, 8)"]),
    ],
    ids=["lengths", "mask", "state"],
)
def test_batched_arguments_of_one_sequence_raise(options: dict[str, Any], words: list[str]) -> None:
    assert_raises_mentioning(lambda: make_layer()(draw_input()[:, 0], **options), *words)


# --- the norm of the heads


def test_norm_of_heads_is_a_layer_norm_of_what_each_head_reads() -> None:
    """Compare with a cell without the norm, whose output gate is divided out."""
    cell, plain = (
        mLSTMCell(3, 8, 0.0, num_heads=2, norm_heads=norm).double() for norm in (True, False)
    )
    with torch.no_grad():
        cell.norm_heads.weight.normal_()
    plain.load_state_dict({k: v for k, v in cell.state_dict().items() if "norm_heads" not in k})
    x, state = draw_input()[0], tuple(part[0] for part in draw_state(make_layer(num_heads=2)))
    h, c, n = cell(x, *state)
    h_plain, c_plain, n_plain = plain(x, *state)
    assert_identical((c, n), (c_plain, n_plain))
    *_, o = cell.project(x)
    read = h_plain.unflatten(-1, (2, 4)) / o
    deviation = (read - read.mean(-1, keepdim=True)) / (
        read.var(-1, False, keepdim=True) + 1e-5
    ).sqrt()
    assert_close(h, (deviation * o).flatten(1) * cell.norm_heads.weight)


def test_norm_of_heads_bounds_the_output() -> None:
    """Of an untrained layer at 336 steps; without it, outputs reach hundreds."""
    torch.manual_seed(0)
    x = torch.randn(336, 16, 8)
    largest = {
        norm: mLSTMLayer(8, 64, norm_heads=norm).eval()(x)[0].abs().max().item()
        for norm in (False, True)
    }
    assert largest[True] <= 15**0.5 < 10 < largest[False], largest


@pytest.mark.parametrize("num_heads", [None, 8, 4])
def test_heads_that_a_norm_would_erase_are_refused(num_heads: int | None) -> None:
    assert_raises_mentioning(
        lambda: mLSTMLayer(3, 8, num_heads=num_heads, norm_heads=True), "norm_heads", "num_heads"
    )


@pytest.mark.parametrize("name", ["bidirectional", "norm_heads"])
def test_options_must_be_bool(name: str) -> None:
    assert_raises_mentioning(lambda: mLSTMLayer(3, 8, **{name: 1}), name, "True or False")


# --- other ways to run it


@parametrize_options
def test_autocast_gives_float32_states(options: dict[str, Any]) -> None:
    """The same as stepping the cells under autocast, which rounds their projections alike."""
    layer = make_layer(**options).float()
    x, state = (
        draw_input().float(),
        tuple(part.float() for part in draw_state(make_layer(**options))),
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(layer(x, state), step_cells(layer, x, state), 2e-2)


def test_bfloat16_weights_keep_float32_states() -> None:
    layer = make_layer(**OPTIONS["both"]).bfloat16()
    output, state = layer(draw_input().bfloat16())
    assert output.dtype == torch.bfloat16 and output.isfinite().all()
    assert all(part.dtype == torch.float32 for part in state)


def test_second_derivatives_match_finite_differences() -> None:
    layer = make_layer(bidirectional=True, norm_heads=True, num_heads=2)
    x = draw_input(3, 1).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: layer(x)[0], (x,), atol=1e-4)


@pytest.mark.slow
def test_compiled_layer_has_no_graph_break() -> None:
    layer = make_layer(**OPTIONS["both"])
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = draw_input()
    assert_close(compiled(x, lengths=torch.tensor([31, 3, 0, 8])), layer(x, lengths=[31, 3, 0, 8]))


def test_dropout_applies_to_both_directions() -> None:
    layer = make_layer(bidirectional=True, dropout=0.5)
    dropped = layer(draw_input(200))[0] == 0
    assert all(
        0.4 < dropped[..., units].double().mean() < 0.6 for units in (slice(8), slice(8, 16))
    )


def test_mask_of_valid_steps_alone_changes_nothing() -> None:
    """It is dropped, which spares passes over the sequence."""
    layer, x = make_layer(), draw_input()
    assert_identical(layer(x, mask=torch.ones(x.shape[:2], dtype=torch.bool)), layer(x))
