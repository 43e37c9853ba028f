"""The layer equals a loop over its cells; masks, states, and torch's transformations of modules."""

from __future__ import annotations

import copy
import io
import math
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.layers import (
    GRADIENT_TOLERANCE,
    State,
    draw_input,
    draw_state,
    gradients,
    make_layer,
    parametrize_masks,
    step_cells,
)
from helpers.products import spread
from helpers.tolerances import assert_close, assert_identical, assert_raises_mentioning
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.cell import mLSTMCell
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.functional import mlstm_read_weights
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.layer import mLSTMLayer

STACKS: dict[str, dict[str, Any]] = {
    "default": {},
    "no-norm": {"layer_norm": False},
    "no-residual": {"num_layers": 3, "residual_conn": False},
    "residual": {"num_layers": 3, "residual_conn": True},
    "no-heads": {"num_layers": 2, "num_heads": None},
    "one-head": {"num_layers": 2, "num_heads": 1, "layer_norm": False},
}
parametrize_stacks = pytest.mark.parametrize("options", STACKS.values(), ids=STACKS)


# --- equality with a loop over the cells


@spread("options, T", STACKS, [1, 31, 70])
def test_layer_matches_a_loop_over_its_cells(options: dict[str, Any], T: int) -> None:
    """Outputs, states and all gradients, from an empty and a drawn state."""
    layer = make_layer(**options)
    x, state = draw_input(T).requires_grad_(), draw_state(layer)
    inputs = [x, *state, *layer.parameters()]
    result, expected = layer(x, state), step_cells(layer, x, state)
    assert_close(result, expected)
    assert_close(gradients(result, inputs), gradients(expected, inputs), GRADIENT_TOLERANCE)

    empty = tuple(torch.zeros_like(part) for part in state)
    assert_close(layer(x), step_cells(layer, x, empty))


@parametrize_masks
@pytest.mark.parametrize("options", [STACKS["residual"], STACKS["no-heads"]], ids=["3", "no-heads"])
def test_masked_layer_matches_a_masked_loop(
    options: dict[str, Any], draw_mask: Callable[[], Tensor]
) -> None:
    layer, mask = make_layer(**options), draw_mask()
    x, state = draw_input().requires_grad_(), draw_state(layer)
    inputs = [x, *state, *layer.parameters()]
    result, expected = layer(x, state, mask), step_cells(layer, x, state, mask)
    assert_close(result, expected)
    assert_close(gradients(result, inputs), gradients(expected, inputs), GRADIENT_TOLERANCE)


@parametrize_masks
def test_masked_inputs_have_no_influence(draw_mask: Callable[[], Tensor]) -> None:
    """NaN and zeros at masked steps give the same output, states and gradients, bit by bit."""
    layer, mask = make_layer(num_layers=2), draw_mask()
    x, state = draw_input(), draw_state(layer)
    results = []
    for filler in (0.0, math.nan):
        filled = x.where(mask[..., None], filler).requires_grad_()
        result = layer(filled, state, mask)
        results.append((result[0], *result[1], *gradients(result, [filled, *layer.parameters()])))
    assert_identical(results[1], results[0])
    assert not results[1][0][~mask].any(), "output at a masked step"
    assert not results[1][4][~mask].any(), "gradient of a masked input"


def test_fully_masked_input_returns_the_state() -> None:
    layer = make_layer(num_layers=2)
    state = draw_state(layer)
    output, after = layer(draw_input(), state, torch.zeros(31, 4, dtype=torch.bool))
    assert not output.any()
    assert_identical(after, state)


def test_masking_is_equivalent_to_removing_steps() -> None:
    """Compare with every sample alone, without its masked steps."""
    layer, mask = make_layer(num_layers=3), torch.rand(31, 4) < 0.6
    x, state = draw_input(), draw_state(layer)
    output, after = layer(x, state, mask)
    for b in range(4):
        valid, sample = mask[:, b], slice(b, b + 1)
        expected = layer(x[valid, sample], tuple(part[:, sample] for part in state))
        assert_close((output[valid, sample], tuple(part[:, sample] for part in after)), expected)


# --- state and residual


def test_state_holds_h_without_the_residual() -> None:
    """The output is h + input of the cell, but the state contains h."""
    layer = make_layer(num_layers=2)
    x = draw_input()
    output, (h, _, _) = layer(x)
    first, _ = step_cells_of(layer.cells[0], x)
    second, _ = step_cells_of(layer.cells[1], first)
    assert_close(h, torch.stack([first[-1], second[-1]]))
    assert_close(output, second + first)


def test_first_cell_has_no_residual() -> None:
    """Even if its input and output have the same width."""
    layer = make_layer(input_size=8)
    output, (h, _, _) = layer(torch.randn(5, 4, 8, dtype=torch.float64))
    assert_identical(output[-1], h[0])


def step_cells_of(cell: mLSTMCell, xs: Tensor) -> tuple[Tensor, State]:
    """Step a cell through ``xs``."""
    state = cell.init_hidden(xs.shape[1])
    outputs = []
    for x in xs:
        state = cell(x, *state)
        outputs.append(state[0])
    return torch.stack(outputs), state


@spread("options, cut", STACKS, [0, 1, 13, 31])
def test_sequence_equals_prefix_then_suffix(options: dict[str, Any], cut: int) -> None:
    layer = make_layer(**options)
    x, state = draw_input(), draw_state(layer)
    prefix, between = layer(x[:cut], state)
    suffix, after = layer(x[cut:], between)
    assert_close((torch.cat([prefix, suffix]), after), layer(x, state))


@spread("options, t", STACKS, [0, 13, 32, 63])
def test_future_has_no_influence_on_the_past(options: dict[str, Any], t: int) -> None:
    layer = make_layer(**options)
    x = draw_input(64)
    changed = x.clone()
    changed[t] += 1
    before, after = layer(x)[0], layer(changed)[0]
    assert_identical(after[:t], before[:t])
    assert not torch.equal(after[t], before[t])


@pytest.mark.parametrize("masked", [False, True], ids=["no-mask", "mask"])
def test_samples_do_not_mix(masked: bool) -> None:
    """Compare with a batch of one sample, and with the batch in another order."""
    layer, mask = make_layer(num_layers=2), torch.rand(31, 4) < 0.6
    x, state = draw_input(), draw_state(layer)
    output, after = layer(x, state, mask if masked else None)
    for rows in ([2], [3, 1, 0, 2]):
        part = layer(
            x[:, rows], tuple(s[:, rows] for s in state), mask[:, rows] if masked else None
        )
        assert_close(part, (output[:, rows], tuple(s[:, rows] for s in after)))


def test_batch_first_transposes_input_output_and_mask() -> None:
    layer = make_layer(num_layers=2)
    batch_first = mLSTMLayer(3, 8, 2, 0.0, batch_first=True).double()
    batch_first.load_state_dict(layer.state_dict())
    x, state, mask = draw_input(), draw_state(layer), torch.rand(31, 4) < 0.6
    for layer_mask, transposed_mask in ((None, None), (mask, mask.T)):
        output, after = layer(x, state, layer_mask)
        result = batch_first(x.transpose(0, 1), state, transposed_mask)
        assert_close(result, (output.transpose(0, 1), after))


def test_inputs_stay_unchanged() -> None:
    layer, mask = make_layer(num_layers=2), torch.rand(31, 4) < 0.6
    inputs = (draw_input(), *draw_state(layer), mask)
    original = tuple(part.clone() for part in inputs)
    layer(inputs[0], inputs[1:4], mask)
    assert_identical(inputs, original)


def test_read_weights_times_values_give_the_output() -> None:
    """For a single cell, and gated by its output gate."""
    layer = make_layer(num_layers=1)
    x, mask = draw_input(), torch.rand(31, 4) < 0.6
    cell = layer.cells[0]
    weights, log_f = layer.read_weights(x, mask)
    assert weights.shape == (1, 4, 4, 31, 31) and log_f.shape == (1, 4, 4, 31)
    *_, v, _, _, o = cell.project(x.masked_fill(~mask[..., None], 0))
    read = torch.einsum("bhjl,lbhv->jbhv", weights[0], v)
    output, _ = layer(x, mask=mask)
    assert_close((o * read).flatten(-2), output)
    valid = mask.T[:, None]
    assert not weights[0].masked_select(~valid[..., None]).any()
    assert not weights[0].masked_select(~valid[..., None, :]).any()
    assert (log_f[0].masked_select(valid) < 0).all() and not log_f[0].masked_select(~valid).any()


@parametrize_stacks
def test_read_weights_of_every_cell_match_its_input(options: dict[str, Any]) -> None:
    layer = make_layer(**options)
    x = draw_input()
    weights, _ = layer.read_weights(x)
    assert len(weights) == layer.num_layers
    u = x
    for i, cell in enumerate(layer.cells):
        q, k, v, log_i, log_f, o = cell.project(u)
        parts = (part.movedim(0, 2) for part in (q, k, log_i, log_f))
        assert_close(weights[i], mlstm_read_weights(*parts))
        hidden = (o * torch.einsum("bhjl,lbhv->jbhv", weights[i], v)).flatten(-2)
        u = hidden + u if layer.residual_conn and i > 0 else hidden
    assert_close(u, layer(x)[0])


def test_read_weights_batch_first_and_invalid_input() -> None:
    layer = make_layer()
    x = draw_input()
    expected = layer.read_weights(x)
    layer.batch_first = True
    assert_identical(layer.read_weights(x.transpose(0, 1)), expected)
    assert_raises_mentioning(lambda: layer.read_weights(x[0, 0]), "mLSTMLayer")


# --- shapes


@pytest.mark.parametrize(
    ("num_heads", "memory"), [(None, (8,)), (1, (1, 8, 8)), (4, (4, 2, 2))], ids=str
)
@pytest.mark.parametrize(("T", "B"), [(5, 4), (1, 1), (0, 4), (5, 0), (0, 0)])
@pytest.mark.parametrize("masked", [False, True], ids=["no-mask", "mask"])
def test_output_and_states_have_the_documented_shapes(
    num_heads: int | None, memory: tuple[int, ...], T: int, B: int, masked: bool
) -> None:
    """Sequences without steps and batches without samples are valid."""
    layer = make_layer(num_layers=2, num_heads=num_heads)
    state = draw_state(layer, B)
    mask = torch.ones(T, B, dtype=torch.bool) if masked else None
    for initial_state in (None, state):
        output, (h, c, n) = layer(draw_input(T, B), initial_state, mask)
        assert output.shape == (T, B, 8)
        assert (h.shape, c.shape, n.shape) == ((2, B, 8), (2, B, *memory), (2, B, 8))
        assert {part.dtype for part in (output, h, c, n)} == {torch.float64}
    if T == 0:
        assert_identical((h, c, n), state)
    (output.sum() + h.sum() + c.sum() + n.sum()).backward()


def test_cells_are_a_module_list() -> None:
    layer = make_layer(num_layers=3)
    assert isinstance(layer.cells, nn.ModuleList)
    assert [type(cell) for cell in layer.cells] == [mLSTMCell] * 3
    assert [cell.input_size for cell in layer.cells] == [3, 8, 8]


# --- learning


@parametrize_stacks
def test_every_parameter_has_a_gradient(options: dict[str, Any]) -> None:
    """Every row of every weight of an untrained layer has a finite gradient that is not 0."""
    layer = mLSTMLayer(**{"input_size": 3, "hidden_size": 8, "dropout": 0.0} | options)
    output, _ = layer(torch.randn(10, 16, 3))
    assert output[-1].std(0).max() > 0.01, "dead at initialization"
    (output * torch.randn_like(output)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().reshape(len(parameter), -1).any(dim=1).all(), name


def test_layer_learns_to_recall() -> None:
    """After twenty steps of noise, it classifies the symbol that it saw first, one of four."""
    layer, head = mLSTMLayer(5, 16, 1, 0.0), nn.Linear(16, 4)
    parameters = [*layer.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    for _ in range(120):
        symbol = torch.randint(4, (64,))
        x = torch.randn(21, 64, 5)
        x[..., 4] = 0
        x[0, :, :4] = nn.functional.one_hot(symbol, 4).float() * 3
        x[0, :, 4] = 1
        output, _ = layer(x)
        loss = nn.functional.cross_entropy(head(output[-1]), symbol)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3, "guessing would give 1.39"


# --- dropout


def test_dropout_is_drawn_for_every_step_and_unit() -> None:
    """Dropout does not change an input of zeros, so only that of the output shows."""
    layer = mLSTMLayer(3, 8, 1, 0.3, layer_norm=False).double()
    x = torch.zeros(50, 40, 3, dtype=torch.float64)
    full, (_, c, n) = layer.eval()(x)
    output, (h, *memory) = layer.train()(x)
    nonzero = output != 0
    assert_close(output[nonzero], full[nonzero] / 0.7)
    assert nonzero.double().mean().item() == pytest.approx(0.7, abs=0.02)
    assert (nonzero[1:] != nonzero[:-1]).any() and (nonzero[:, 1:] != nonzero[:, :-1]).any()
    assert_identical(h[0], output[-1])
    assert_identical(tuple(memory), (c, n))


def test_no_dropout_in_evaluation_mode() -> None:
    layer = make_layer(num_layers=2, dropout=0.5).eval()
    x = draw_input()
    assert_identical(layer(x), layer(x))
    assert_close(layer(x), step_cells(layer, x, zero_state(layer)))
    assert not torch.equal(layer.train()(x)[0], layer(x)[0])


def zero_state(layer: mLSTMLayer) -> State:
    """Return an empty state for a batch of 4 without ``init_hidden``."""
    h, c, n = (torch.zeros_like(part) for part in draw_state(layer))
    return h, c, n


def test_seed_determines_weights_and_dropout() -> None:
    def draw(seed: int) -> tuple[Tensor, ...]:
        torch.manual_seed(seed)
        layer = mLSTMLayer(3, 8, 2, dropout=0.5)
        output, state = layer(torch.ones(5, 4, 3))
        return (*layer.state_dict().values(), output, *state)

    assert_identical(draw(3), draw(3))
    assert not torch.equal(draw(3)[0], draw(4)[0])


# --- precision


@parametrize_stacks
def test_float32_matches_float64(options: dict[str, Any]) -> None:
    layer = make_layer(**options)
    x = draw_input(200)
    expected, expected_state = layer(x)
    output, state = layer.float()(x.float())
    # Every layer amplifies the rounding errors of the layers before it, and so does exp.
    assert_close(output, expected.float(), 1e-4)
    assert_close(state, tuple(part.float() for part in expected_state), 1e-4)


@parametrize_stacks
def test_autocast_gives_float32_states_and_matches_stepping(options: dict[str, Any]) -> None:
    settings = {"input_size": 3, "hidden_size": 8, "dropout": 0.0} | options
    layer = mLSTMLayer(**settings)
    x = torch.randn(31, 4, 3)
    plain, _ = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, state = layer(x)
        stepped, stepped_state = step_cells(
            layer, x, tuple(torch.zeros_like(part) for part in state)
        )
    assert {part.dtype for part in (*state, *stepped_state)} == {torch.float32}
    assert_close((output.float(), state), (stepped.float(), stepped_state), BFLOAT16)
    assert (output - plain).square().mean() < 0.1**2 * plain.square().mean()


# Both forms read in bfloat16, and a unit that rounds the other way changes the next layers.
BFLOAT16 = 2e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_reduced_precision_weights_keep_float32_states(dtype: torch.dtype) -> None:
    layer = mLSTMLayer(3, 8, 2, 0.0).to(dtype)
    output, state = layer(torch.randn(31, 4, 3, dtype=dtype))
    assert output.dtype == dtype and output.isfinite().all() and output.any()
    assert {part.dtype for part in state} == {torch.float32}
    layer(torch.randn(31, 4, 3, dtype=dtype), state)


# --- cost


def test_layer_does_not_loop_over_time() -> None:
    class Count(TorchDispatchMode):
        operations = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            self.operations += 1
            return func(*args, **(kwargs or {}))

    layer, counts = make_layer(num_layers=2), []
    for T in (128, 1024):  # multiples of the chunk size, since padding adds a few operations
        with Count() as count:
            layer(draw_input(T), mask=torch.ones(T, 4, dtype=torch.bool))
        counts.append(count.operations)
    assert counts[0] == counts[1]


# --- copying, compiling and exporting


@pytest.mark.parametrize("method", ["deepcopy", "pickle", "state_dict"])
def test_copied_layer_gives_the_same_output(method: str) -> None:
    layer, layer_copy = make_layer(num_layers=2), make_layer(num_layers=2)
    x = draw_input()
    assert not torch.equal(layer(x)[0], layer_copy(x)[0])
    file = io.BytesIO()
    if method == "deepcopy":
        layer_copy = copy.deepcopy(layer)
    elif method == "pickle":
        torch.save(layer, file)
        file.seek(0)
        layer_copy = torch.load(file, weights_only=False)
    else:
        torch.save(layer.state_dict(), file)
        file.seek(0)
        layer_copy.load_state_dict(torch.load(file, weights_only=True))
    assert_identical(layer_copy(x), layer(x))


def test_cell_of_the_layer_continues_from_its_state() -> None:
    """The layer reads the history, then the cell continues step by step."""
    layer = make_layer()
    x = draw_input()
    expected, _ = layer(x)
    _, state = layer(x[:20])
    h, c, n = (part[0] for part in state)
    for t in range(20, 31):
        h, c, n = layer.cells[0](x[t], h, c, n)
        assert_close(h, expected[t])


# torch's tracer and compiler call deprecated functions of torch.
ignore_deprecations = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.slow
@ignore_deprecations
def test_compiled_layer_has_no_graph_break() -> None:
    """One forward and one backward graph, which give the same numbers."""
    layer = make_layer(num_layers=2)
    x, mask = draw_input(), torch.rand(31, 4) < 0.6
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    inputs = list(layer.parameters())
    expected = layer(x, mask=mask)
    result = compiled(x, mask=mask)
    assert_close(result, expected)
    assert_close(gradients(result, inputs), gradients(expected, inputs), GRADIENT_TOLERANCE)


@pytest.mark.slow  # test_export.py exports a layer for every length in every run
@ignore_deprecations
def test_one_graph_serves_every_length() -> None:
    """Another T does not compile again, and numbers and gradients are the same, with a mask."""
    layer = make_layer()
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=counter)
    graphs = []
    for T in (40, 70, 17, 133):
        x = torch.randn(T, 4, 3, dtype=torch.float64, requires_grad=True)
        mask = torch.rand(T, 4) < 0.6
        inputs = [x, *layer.parameters()]
        result, expected = compiled(x, mask=mask), layer(x, mask=mask)
        assert_close(result, expected)
        assert_close(gradients(result, inputs), gradients(expected, inputs), GRADIENT_TOLERANCE)
        graphs.append(counter.frame_count)
    assert graphs == graphs[:1] * 4


@ignore_deprecations
def test_exported_layer_has_no_custom_operator() -> None:
    """It runs without this package."""
    layer, x = make_layer().eval(), draw_input()
    program = torch.export.export(layer, (x,))
    assert "pytorch_forecasting_mlstm" not in program.graph_module.code
    assert_close(program.module()(x), layer(x))


@ignore_deprecations
@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))),
    reason="torch.compile needs a C++ compiler",
)
def test_layer_compiles_with_inductor() -> None:
    layer = make_layer()
    x = draw_input()
    torch._dynamo.reset()
    with torch.no_grad():
        assert_close(torch.compile(layer, fullgraph=True)(x), layer(x))


# --- errors

INVALID_ARGUMENTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no layers": ({"num_layers": 0}, ["mLSTMLayer", "num_layers", "0"]),
    "fractional layers": ({"num_layers": 1.5}, ["mLSTMLayer", "num_layers", "1.5"]),
    "residual not a bool": ({"residual_conn": "no"}, ["mLSTMLayer", "residual_conn", "no"]),
    "batch_first not a bool": ({"batch_first": 3}, ["mLSTMLayer", "batch_first", "3"]),
    "heads do not divide": ({"num_heads": 3}, ["hidden_size", "num_heads", "8", "3"]),
    "dropout of 1": ({"dropout": 1.0}, ["dropout", "1.0"]),
    "no inputs": ({"input_size": 0}, ["input_size", "0"]),
}


@pytest.mark.parametrize(("options", "words"), INVALID_ARGUMENTS.values(), ids=INVALID_ARGUMENTS)
def test_invalid_argument_raises(options: dict[str, Any], words: list[str]) -> None:
    settings = {"input_size": 3, "hidden_size": 8} | options
    assert_raises_mentioning(lambda: mLSTMLayer(**settings), *words)


ZEROS = torch.zeros
INVALID_INPUTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "one vector": ({"x": ZEROS(3)}, ["x", "(3,)"]),
    "width": ({"x": ZEROS(5, 4, 2)}, ["x", "3", "(5, 4, 2)"]),
    "integers": ({"x": ZEROS(5, 4, 3).int()}, ["x", "int32", "float32"]),
    "double": ({"x": ZEROS(5, 4, 3).double()}, ["x", "float64", "float32"]),
    "x on another device": ({"x": ZEROS(5, 4, 3, device="meta")}, ["x", "meta", "cpu"]),
    "mask transposed": (
        {"mask": ZEROS(4, 5, dtype=torch.bool)},
        ["mask", "(5, 4)", "(4, 5)"],
    ),
    "mask of lengths": ({"mask": torch.tensor([5, 4, 3, 2])}, ["mask", "(5, 4)", "(4,)"]),
    "mask of floats": ({"mask": torch.ones(5, 4)}, ["mask", "bool", "float32"]),
    "mask in a list": ({"mask": [[True]]}, ["mask", "tensor", "list"]),
    "state of an LSTM": (
        {"state": (ZEROS(2, 4, 8), ZEROS(2, 4, 4, 2, 2))},
        ["state", "three tensors (h, c, n), got 2", "normalizer", "init_hidden"],
    ),
    "packed sequence": (
        {"x": pack_padded_sequence(ZEROS(5, 4, 3), torch.tensor([5, 4, 3, 2]))},
        ["x", "PackedSequence", "pad_packed_sequence", "mask="],
    ),
    "state with None": (
        {"state": (ZEROS(2, 4, 8), None, ZEROS(2, 4, 8))},
        ["state", "c", "NoneType"],
    ),
    "state in one tensor": ({"state": ZEROS(3, 4, 8)}, ["state", "(h, c, n)", "Tensor"]),
    "state with another batch size": (
        {"state": (ZEROS(2, 1, 8), ZEROS(2, 1, 4, 2, 2), ZEROS(2, 1, 8))},
        ["state", "h", "(2, 4, 8)", "(2, 1, 8)"],
    ),
    "state of one layer": (
        {"state": (ZEROS(2, 4, 8), ZEROS(1, 4, 4, 2, 2), ZEROS(2, 4, 8))},
        ["state", "c", "(2, 4, 4, 2, 2)", "(1, 4, 4, 2, 2)"],
    ),
    "state in half precision": (
        {"state": (ZEROS(2, 4, 8), ZEROS(2, 4, 4, 2, 2).half(), ZEROS(2, 4, 8))},
        ["state", "c", "float16", "float32"],
    ),
    "state on another device": (
        {"state": (ZEROS(2, 4, 8), ZEROS(2, 4, 4, 2, 2), ZEROS(2, 4, 8, device="meta"))},
        ["state", "n", "meta", "cpu"],
    ),
}


@pytest.mark.parametrize(("parts", "words"), INVALID_INPUTS.values(), ids=INVALID_INPUTS)
def test_invalid_input_raises(parts: dict[str, Any], words: list[str]) -> None:
    layer = mLSTMLayer(3, 8, 2)
    inputs = {"x": ZEROS(5, 4, 3)} | parts
    assert_raises_mentioning(lambda: layer(**inputs), "mLSTMLayer", *words)
