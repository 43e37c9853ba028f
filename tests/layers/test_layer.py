"""The layer: a loop over its cells, computed all at once; masks, states, and torch around it."""

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
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.layers import (
    GRADIENT,
    State,
    draw_input,
    draw_state,
    each_mask,
    gradients,
    make_layer,
    step_cells,
)
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
each_stack = pytest.mark.parametrize("options", STACKS.values(), ids=STACKS)


# --- equality with a loop over the cells


@each_stack
@pytest.mark.parametrize("T", [1, 31, 70])
def test_layer_is_a_loop_over_its_cells(options: dict[str, Any], T: int) -> None:
    """Outputs, states and all gradients, from an empty state and from another."""
    layer = make_layer(**options)
    x, state = draw_input(T).requires_grad_(), draw_state(layer)
    inputs = [x, *state, *layer.parameters()]
    result, expected = layer(x, state), step_cells(layer, x, state)
    assert_close(result, expected)
    assert_close(gradients(result, inputs), gradients(expected, inputs), GRADIENT)

    empty = tuple(torch.zeros_like(part) for part in state)
    assert_close(layer(x), step_cells(layer, x, empty))


@each_mask
@pytest.mark.parametrize("options", [STACKS["residual"], STACKS["no-heads"]], ids=["3", "no-heads"])
def test_masked_layer_is_a_masked_loop(
    options: dict[str, Any], draw_mask: Callable[[], Tensor]
) -> None:
    layer, mask = make_layer(**options), draw_mask()
    x, state = draw_input().requires_grad_(), draw_state(layer)
    inputs = [x, *state, *layer.parameters()]
    result, expected = layer(x, state, mask), step_cells(layer, x, state, mask)
    assert_close(result, expected)
    assert_close(gradients(result, inputs), gradients(expected, inputs), GRADIENT)


@each_mask
def test_what_lies_under_the_mask_has_no_influence(draw_mask: Callable[[], Tensor]) -> None:
    """NaN there, against zeros: same output, states and gradients, to the bit."""
    layer, mask = make_layer(num_layers=2), draw_mask()
    x, state = draw_input(), draw_state(layer)
    found = []
    for filler in (0.0, math.nan):
        filled = x.where(mask[..., None], filler).requires_grad_()
        result = layer(filled, state, mask)
        found.append((result[0], *result[1], *gradients(result, [filled, *layer.parameters()])))
    assert_identical(found[1], found[0])
    assert not found[1][0][~mask].any(), "output at a masked step"
    assert not found[1][4][~mask].any(), "gradient of a masked input"


def test_nothing_valid_returns_the_state_untouched() -> None:
    layer = make_layer(num_layers=2)
    state = draw_state(layer)
    output, after = layer(draw_input(), state, torch.zeros(31, 4, dtype=torch.bool))
    assert not output.any()
    assert_identical(after, state)


def test_masked_steps_are_as_if_cut_out() -> None:
    """Each sample alone, without its masked steps."""
    layer, mask = make_layer(num_layers=3), torch.rand(31, 4) < 0.6
    x, state = draw_input(), draw_state(layer)
    output, after = layer(x, state, mask)
    for b in range(4):
        valid, one = mask[:, b], slice(b, b + 1)
        expected = layer(x[valid, one], tuple(part[:, one] for part in state))
        assert_close((output[valid, one], tuple(part[:, one] for part in after)), expected)


# --- state and residual


def test_stored_hidden_state_is_the_cells_own() -> None:
    """With a residual, output = h + input of that cell; what is stored is h."""
    layer = make_layer(num_layers=2)
    x = draw_input()
    output, (h, _, _) = layer(x)
    first, _ = step_cells_of(layer.cells[0], x)
    second, _ = step_cells_of(layer.cells[1], first)
    assert_close(h, torch.stack([first[-1], second[-1]]))
    assert_close(output, second + first)


def test_first_cell_has_no_residual() -> None:
    """Even where its input is as wide as its output."""
    layer = make_layer(input_size=8)
    output, (h, _, _) = layer(torch.randn(5, 4, 8, dtype=torch.float64))
    assert_identical(output[-1], h[0])


def step_cells_of(cell: mLSTMCell, xs: Tensor) -> tuple[Tensor, State]:
    """Step one cell through xs."""
    state = cell.init_hidden(xs.shape[1])
    outputs = []
    for x in xs:
        state = cell(x, *state)
        outputs.append(state[0])
    return torch.stack(outputs), state


@each_stack
@pytest.mark.parametrize("cut", [0, 1, 13, 31])
def test_whole_is_prefix_then_suffix(options: dict[str, Any], cut: int) -> None:
    layer = make_layer(**options)
    x, state = draw_input(), draw_state(layer)
    prefix, between = layer(x[:cut], state)
    suffix, after = layer(x[cut:], between)
    assert_close((torch.cat([prefix, suffix]), after), layer(x, state))


@each_stack
@pytest.mark.parametrize("t", [0, 13, 32, 63])
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
    """A batch of one, and the batch in another order."""
    layer, mask = make_layer(num_layers=2), torch.rand(31, 4) < 0.6
    x, state = draw_input(), draw_state(layer)
    output, after = layer(x, state, mask if masked else None)
    for chosen in ([2], [3, 1, 0, 2]):
        part = layer(
            x[:, chosen], tuple(s[:, chosen] for s in state), mask[:, chosen] if masked else None
        )
        assert_close(part, (output[:, chosen], tuple(s[:, chosen] for s in after)))


def test_batch_first_is_a_transposition() -> None:
    layer = make_layer(num_layers=2)
    other = mLSTMLayer(3, 8, 2, 0.0, batch_first=True).double()
    other.load_state_dict(layer.state_dict())
    x, state, mask = draw_input(), draw_state(layer), torch.rand(31, 4) < 0.6
    for given in (None, mask):
        output, after = layer(x, state, given)
        result = other(x.transpose(0, 1), state, None if given is None else given.T)
        assert_close(result, (output.transpose(0, 1), after))


def test_inputs_are_not_changed() -> None:
    layer, mask = make_layer(num_layers=2), torch.rand(31, 4) < 0.6
    inputs = (draw_input(), *draw_state(layer), mask)
    kept = tuple(part.clone() for part in inputs)
    layer(inputs[0], inputs[1:4], mask)
    assert_identical(inputs, kept)


def test_read_weights_explain_the_output() -> None:
    """A stack of one cell: the gated weights times the values are the output."""
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


@each_stack
def test_read_weights_of_every_cell_are_those_of_its_own_input(options: dict[str, Any]) -> None:
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


def test_read_weights_batch_first_and_bad_input() -> None:
    layer = make_layer()
    x = draw_input()
    expected = layer.read_weights(x)
    layer.batch_first = True
    assert_identical(layer.read_weights(x.transpose(0, 1)), expected)
    assert_raises_mentioning(lambda: layer.read_weights(x[0]), "mLSTMLayer")


# --- shapes


@pytest.mark.parametrize(
    ("num_heads", "memory"), [(None, (8,)), (1, (1, 8, 8)), (4, (4, 2, 2))], ids=str
)
@pytest.mark.parametrize(("T", "B"), [(5, 4), (1, 1), (0, 4), (5, 0), (0, 0)])
@pytest.mark.parametrize("masked", [False, True], ids=["no-mask", "mask"])
def test_shapes(
    num_heads: int | None, memory: tuple[int, ...], T: int, B: int, masked: bool
) -> None:
    """No steps and no samples are sizes like any other."""
    layer = make_layer(num_layers=2, num_heads=num_heads)
    state = draw_state(layer, B)
    mask = torch.ones(T, B, dtype=torch.bool) if masked else None
    for given in (None, state):
        output, (h, c, n) = layer(draw_input(T, B), given, mask)
        assert output.shape == (T, B, 8)
        assert (h.shape, c.shape, n.shape) == ((2, B, 8), (2, B, *memory), (2, B, 8))
        assert {part.dtype for part in (output, h, c, n)} == {torch.float64}
    if T == 0:
        assert_identical((h, c, n), state)
    (output.sum() + h.sum() + c.sum() + n.sum()).backward()


def test_cells_are_listed() -> None:
    layer = make_layer(num_layers=3)
    assert isinstance(layer.cells, nn.ModuleList)
    assert [type(cell) for cell in layer.cells] == [mLSTMCell] * 3
    assert [cell.input_size for cell in layer.cells] == [3, 8, 8]


# --- learning


@each_stack
def test_every_parameter_matters(options: dict[str, Any]) -> None:
    """Each row of each weight of a fresh layer has a finite gradient that is not 0."""
    layer = mLSTMLayer(**{"input_size": 3, "hidden_size": 8, "dropout": 0.0} | options)
    output, _ = layer(torch.randn(10, 16, 3))
    assert output[-1].std(0).max() > 0.01, "dead at initialization"
    (output * torch.randn_like(output)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().reshape(len(parameter), -1).any(dim=1).all(), name


def test_layer_learns_to_recall() -> None:
    """One of four symbols, shown first, is named after twenty steps of noise."""
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
    assert loss < 0.3, "guessing gives 1.39"


# --- dropout


def test_dropout_is_drawn_for_each_step_and_unit() -> None:
    """From zeros, which dropout leaves alone, to an output where it can be seen."""
    layer = mLSTMLayer(3, 8, 1, 0.3, layer_norm=False).double()
    x = torch.zeros(50, 40, 3, dtype=torch.float64)
    full, (_, c, n) = layer.eval()(x)
    output, (h, *memory) = layer.train()(x)
    kept = output != 0
    assert_close(output[kept], full[kept] / 0.7)
    assert kept.double().mean().item() == pytest.approx(0.7, abs=0.02)
    assert (kept[1:] != kept[:-1]).any() and (kept[:, 1:] != kept[:, :-1]).any()
    assert_identical(h[0], output[-1])
    assert_identical(tuple(memory), (c, n))


def test_no_dropout_when_evaluating() -> None:
    layer = make_layer(num_layers=2, dropout=0.5).eval()
    x = draw_input()
    assert_identical(layer(x), layer(x))
    assert_close(layer(x), step_cells(layer, x, zero_state(layer)))
    assert not torch.equal(layer.train()(x)[0], layer(x)[0])


def zero_state(layer: mLSTMLayer) -> State:
    """Return an empty state for a batch of 4, made without the layer."""
    h, c, n = (torch.zeros_like(part) for part in draw_state(layer))
    return h, c, n


def test_seed_decides_weights_and_dropout() -> None:
    def draw(seed: int) -> tuple[Tensor, ...]:
        torch.manual_seed(seed)
        layer = mLSTMLayer(3, 8, 2, dropout=0.5)
        output, state = layer(torch.ones(5, 4, 3))
        return (*layer.state_dict().values(), output, *state)

    assert_identical(draw(3), draw(3))
    assert not torch.equal(draw(3)[0], draw(4)[0])


# --- precision


@each_stack
def test_float32_is_float64_rounded(options: dict[str, Any]) -> None:
    layer = make_layer(**options)
    x = draw_input(200)
    expected, expected_state = layer(x)
    output, state = layer.float()(x.float())
    # Layers multiply the rounding of the ones before; exp does too.
    assert_close(output, expected.float(), 1e-4)
    assert_close(state, tuple(part.float() for part in expected_state), 1e-4)


@each_stack
def test_autocast_gives_float32_states_and_what_stepping_gives(options: dict[str, Any]) -> None:
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


# Both forms read out in bfloat16, and a unit that rounds the other way moves the next layers.
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
    for T in (128, 1024):  # whole chunks, both: padding would add a few operations
        with Count() as count:
            layer(draw_input(T), mask=torch.ones(T, 4, dtype=torch.bool))
        counts.append(count.operations)
    assert counts[0] == counts[1]


# --- what torch does to modules


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "state_dict"])
def test_a_copy_gives_the_same(way: str) -> None:
    layer, other = make_layer(num_layers=2), make_layer(num_layers=2)
    x = draw_input()
    assert not torch.equal(layer(x)[0], other(x)[0])
    file = io.BytesIO()
    if way == "deepcopy":
        other = copy.deepcopy(layer)
    elif way == "pickle":
        torch.save(layer, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    else:
        torch.save(layer.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
    assert_identical(other(x), layer(x))


def test_a_cell_taken_from_the_layer_goes_on_where_the_layer_stopped() -> None:
    """Fast over the history, then step by step."""
    layer = make_layer()
    x = draw_input()
    whole, _ = layer(x)
    _, state = layer(x[:20])
    h, c, n = (part[0] for part in state)
    for t in range(20, 31):
        h, c, n = layer.cells[0](x[t], h, c, n)
        assert_close(h, whole[t])


# torch's own tracer and compiler do what torch deprecates.
compiles = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@compiles
def test_traces_without_a_break() -> None:
    """One graph forward, one back, with the same numbers."""
    layer = make_layer(num_layers=2)
    x, mask = draw_input(), torch.rand(31, 4) < 0.6
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    inputs = list(layer.parameters())
    expected = layer(x, mask=mask)
    result = compiled(x, mask=mask)
    assert_close(result, expected)
    assert_close(gradients(result, inputs), gradients(expected, inputs), GRADIENT)


@compiles
def test_one_trace_serves_every_length() -> None:
    """No second compilation for another T, and the same numbers, gradients too."""
    layer = make_layer()
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=counter)
    graphs = []
    for T in (40, 70, 17, 133):
        x = torch.randn(T, 4, 3, dtype=torch.float64, requires_grad=True)
        inputs = [x, *layer.parameters()]
        result, expected = compiled(x), layer(x)
        assert_close(result, expected)
        assert_close(gradients(result, inputs), gradients(expected, inputs), GRADIENT)
        graphs.append(counter.frame_count)
    assert graphs == graphs[:1] * 4


@compiles
def test_exports_without_an_operator_of_its_own() -> None:
    """What is exported runs where this package is not."""
    layer, x = make_layer().eval(), draw_input()
    program = torch.export.export(layer, (x,))
    assert "pytorch_forecasting_mlstm" not in program.graph_module.code
    assert_close(program.module()(x), layer(x))


@compiles
@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))),
    reason="torch.compile needs a C++ compiler",
)
def test_compiles() -> None:
    layer = make_layer()
    x = draw_input()
    torch._dynamo.reset()
    with torch.no_grad():
        assert_close(torch.compile(layer, fullgraph=True)(x), layer(x))


# --- errors

BAD_ARGUMENTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no layers": ({"num_layers": 0}, ["mLSTMLayer", "num_layers", "0"]),
    "layers a fraction": ({"num_layers": 1.5}, ["mLSTMLayer", "num_layers", "1.5"]),
    "residual a word": ({"residual_conn": "no"}, ["mLSTMLayer", "residual_conn", "no"]),
    "batch_first a number": ({"batch_first": 3}, ["mLSTMLayer", "batch_first", "3"]),
    "heads do not divide": ({"num_heads": 3}, ["hidden_size", "num_heads", "8", "3"]),
    "dropout of all": ({"dropout": 1.0}, ["dropout", "1.0"]),
    "no input": ({"input_size": 0}, ["input_size", "0"]),
}


@pytest.mark.parametrize(("options", "said"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_argument_is_explained(options: dict[str, Any], said: list[str]) -> None:
    settings = {"input_size": 3, "hidden_size": 8} | options
    assert_raises_mentioning(lambda: mLSTMLayer(**settings), *said)


ZEROS = torch.zeros
BAD_INPUTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "one step": ({"x": ZEROS(4, 3)}, ["x", "(4, 3)"]),
    "width": ({"x": ZEROS(5, 4, 2)}, ["x", "3", "(5, 4, 2)"]),
    "integers": ({"x": ZEROS(5, 4, 3).int()}, ["x", "int32", "float32"]),
    "double": ({"x": ZEROS(5, 4, 3).double()}, ["x", "float64", "float32"]),
    "x elsewhere": ({"x": ZEROS(5, 4, 3, device="meta")}, ["x", "meta", "cpu"]),
    "mask transposed": (
        {"mask": ZEROS(4, 5, dtype=torch.bool)},
        ["mask", "(5, 4)", "(4, 5)"],
    ),
    "mask of lengths": ({"mask": torch.tensor([5, 4, 3, 2])}, ["mask", "(5, 4)", "(4,)"]),
    "mask of numbers": ({"mask": torch.ones(5, 4)}, ["mask", "bool", "float32"]),
    "mask a list": ({"mask": [[True]]}, ["mask", "tensor", "list"]),
    "half a state": ({"state": (ZEROS(2, 4, 8), ZEROS(2, 4, 4, 2, 2))}, ["state", "(h, c, n)"]),
    "state with a gap": (
        {"state": (ZEROS(2, 4, 8), None, ZEROS(2, 4, 8))},
        ["state", "c", "NoneType"],
    ),
    "state a tensor": ({"state": ZEROS(3, 4, 8)}, ["state", "(h, c, n)", "Tensor"]),
    "state of another batch": (
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
    "state elsewhere": (
        {"state": (ZEROS(2, 4, 8), ZEROS(2, 4, 4, 2, 2), ZEROS(2, 4, 8, device="meta"))},
        ["state", "n", "meta", "cpu"],
    ),
}


@pytest.mark.parametrize(("parts", "said"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_bad_input_is_explained(parts: dict[str, Any], said: list[str]) -> None:
    layer = mLSTMLayer(3, 8, 2)
    inputs = {"x": ZEROS(5, 4, 3)} | parts
    assert_raises_mentioning(lambda: layer(**inputs), "mLSTMLayer", *said)
