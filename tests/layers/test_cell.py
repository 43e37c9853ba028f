"""The cell: the documented contract, the paper's equations, and no defect of the stock cell."""

from __future__ import annotations

import copy
import inspect
import io
import math
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.reference import reference_cell
from helpers.tolerances import assert_close, assert_identical, assert_raises_mentioning
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.cell import mLSTMCell

State = tuple[Tensor, Tensor, Tensor]

each_norm = pytest.mark.parametrize("layer_norm", [True, False], ids=["norm", "no-norm"])
each_heads = pytest.mark.parametrize("num_heads", [None, 1, 2, 8], ids="heads-{}".format)


def make_cell(num_heads: int | None = 2, layer_norm: bool = True, **options: Any) -> mLSTMCell:
    """Build a cell of 3 inputs and 8 hidden units in float64, without dropout."""
    settings = {"input_size": 3, "hidden_size": 8, "dropout": 0.0} | options
    return mLSTMCell(**settings, layer_norm=layer_norm, num_heads=num_heads).double()


def shake(module: nn.Module) -> None:
    """Move every parameter off its initial value, so that gains are not 1 and offsets not 0."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))


def run(cell: Callable[..., State], xs: Tensor, state: State) -> tuple[Tensor, State]:
    """Step through xs (T, B, input); returns every h, stacked, and the last state."""
    outputs = []
    for x in xs:
        state = cell(x, *state)
        outputs.append(state[0])
    return torch.stack(outputs), state


def transparent(num_heads: int | None, hidden_size: int = 4, dropout: float = 0.0) -> mLSTMCell:
    """Build a cell whose input is its pre-activations: q, k, v, i, f, o side by side."""
    heads = num_heads or hidden_size
    width = 4 * hidden_size + 2 * heads
    cell = mLSTMCell(width, hidden_size, dropout, layer_norm=False, num_heads=num_heads).double()
    with torch.no_grad():
        cell.projection.weight.copy_(torch.eye(width))
        cell.projection.bias.zero_()
    return cell


# --- the contract


def test_signatures_are_the_documented_ones() -> None:
    def signature(function: Callable[..., Any]) -> list[str]:
        return [str(p).split(":")[0] for p in inspect.signature(function).parameters.values()]

    defaults = {name: p.default for name, p in inspect.signature(mLSTMCell).parameters.items()}
    assert list(defaults) == ["input_size", "hidden_size", "dropout", "layer_norm", "num_heads"]
    assert [defaults[name] for name in ("dropout", "layer_norm", "num_heads")] == [0.2, True, None]
    assert (
        inspect.signature(mLSTMCell).parameters["num_heads"].kind is inspect.Parameter.KEYWORD_ONLY
    )
    assert signature(mLSTMCell.forward) == ["self", "x", "h_prev", "c_prev", "n_prev"]
    assert signature(mLSTMCell.init_hidden) == ["self", "batch_size", "device"]


@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize(
    ("num_heads", "memory"), [(None, (8,)), (1, (1, 8, 8)), (4, (4, 2, 2))], ids=str
)
def test_state_has_the_documented_shape(
    num_heads: int | None, memory: tuple[int, ...], batch: int
) -> None:
    cell = mLSTMCell(3, 8, num_heads=num_heads)
    state = cell.init_hidden(batch)
    expected = [(batch, 8), (batch, *memory), (batch, 8)]
    assert not any(part.any() for part in state)
    assert [part.shape for part in state] == expected
    state = cell(torch.randn(batch, 3), *state)
    assert [part.shape for part in state] == expected
    assert {part.dtype for part in state} == {torch.float32}
    sum(part.sum() for part in state).backward()


def test_parts_of_the_empty_state_are_apart() -> None:
    h, c, n = mLSTMCell(3, 8).init_hidden(2)
    h += 1
    assert not c.any() and not n.any()


def test_init_hidden_follows_the_device() -> None:
    cell = mLSTMCell(3, 8)
    assert {part.device.type for part in cell.init_hidden(2)} == {"cpu"}
    assert {part.device.type for part in cell.init_hidden(2, device="meta")} == {"meta"}
    assert {part.device.type for part in cell.to("meta").init_hidden(2)} == {"meta"}


@each_norm
@each_heads
def test_cell_is_the_papers_equations(num_heads: int | None, layer_norm: bool) -> None:
    """Outputs, true states and all gradients over five steps from a state that is not empty."""
    cell = make_cell(num_heads, layer_norm)
    shake(cell)
    heads, head_dim = num_heads or 8, 8 // (num_heads or 8)
    xs = 2 * torch.randn(5, 4, 3, dtype=torch.float64)
    c = torch.randn(4, heads, head_dim, head_dim, dtype=torch.float64, requires_grad=True)
    n = torch.randn(4, 8, dtype=torch.float64, requires_grad=True)
    weights = dict(cell.named_parameters())
    inputs = [c, n, *weights.values()]

    def expected_step(x: Tensor, h: Tensor, c: Tensor, n: Tensor) -> State:
        return reference_cell(weights, heads, x, c, n)

    h, state = run(cell, xs, (torch.zeros_like(n), c if num_heads else c.reshape(4, 8), n))
    expected_h, expected = run(expected_step, xs, (torch.zeros_like(n), c, n))
    results = (h, state[1].reshape(c.shape), state[2])
    expected_results = (expected_h, *expected[1:])
    assert_close(results, expected_results)
    mix = [torch.randn_like(part) for part in results]
    gradients, expected_gradients = (
        torch.autograd.grad(sum((w * z).sum() for w, z in zip(mix, parts, strict=True)), inputs)
        for parts in (results, expected_results)
    )
    assert_close(gradients, expected_gradients)


@each_norm
def test_no_heads_means_one_per_unit(layer_norm: bool) -> None:
    plain, headed = make_cell(None, layer_norm), make_cell(8, layer_norm)
    headed.load_state_dict(plain.state_dict())
    xs = torch.randn(5, 4, 3, dtype=torch.float64)
    h, state = run(plain, xs, plain.init_hidden(4))
    expected_h, expected = run(headed, xs, headed.init_hidden(4))
    assert_identical((h, state[1][..., None, None], state[2]), (expected_h, *expected[1:]))


@each_heads
def test_previous_hidden_state_has_no_influence(num_heads: int | None) -> None:
    cell = make_cell(num_heads)
    x = torch.randn(4, 3, dtype=torch.float64)
    h, c, n = cell.init_hidden(4)
    assert_identical(cell(x, torch.full_like(h, math.nan), c, n), cell(x, h, c, n))


def test_inputs_are_not_changed() -> None:
    cell = make_cell()
    inputs = (torch.randn(4, 3).double(), *(part + 1 for part in cell.init_hidden(4)))
    kept = tuple(part.clone() for part in inputs)
    cell(*inputs)
    assert_identical(inputs, kept)


@pytest.mark.parametrize("scale", [1e3, -1e3])
def test_input_gate_is_capped(scale: float) -> None:
    """exp(±15), to which 15 tanh(z / 15) tends; the forget gate and k are 0.5 and 1."""
    cell = transparent(num_heads=2)
    x = torch.zeros(1, cell.input_size, dtype=torch.float64)
    x[:, 4:8] = math.sqrt(2)
    x[:, 12:14] = scale
    _, _, n = cell(x, *cell.init_hidden(1))
    assert_close(n, torch.full_like(n, math.exp(math.copysign(15, scale))))


def test_true_states_fit_float32_at_the_largest_gates() -> None:
    cell = transparent(num_heads=1).float()
    x = torch.randn(500, 3, cell.input_size)
    x[..., 12:14] = 1e3
    h, state = run(cell, x, cell.init_hidden(3))
    assert all(part.isfinite().all() for part in (h, *state))


# --- what the stock cell does wrong, and this one must not


@pytest.fixture
def stock_cell() -> type[nn.Module]:
    """The class that pytorch-forecasting 1.8 ships."""
    if not version("pytorch-forecasting").startswith("1.8."):
        pytest.skip("the defects are those of pytorch-forecasting 1.8")
    from pytorch_forecasting.layers._recurrent._mlstm.cell import mLSTMCell as Stock

    assert Stock is not mLSTMCell, "a test before this one left the stock cell replaced"
    return Stock


def assert_alive(cell: nn.Module) -> None:
    """The output varies with the input, from the start."""
    h, _ = run(cell, torch.randn(20, 64, cell.input_size), cell.init_hidden(64))
    assert h[-1].std(0).max() > 0.01, "dead at initialization"


def assert_all_parameters_matter(cell: nn.Module) -> None:
    """Each row of each weight, so each part of a fused one, has a finite gradient that is not 0."""
    h, _ = run(cell, torch.randn(6, 16, cell.input_size), cell.init_hidden(16))
    (h * torch.randn_like(h)).sum().backward()
    for name, parameter in cell.named_parameters():
        assert parameter.grad is not None, f"{name} has no influence"
        assert parameter.grad.isfinite().all(), f"{name} has a gradient that is not finite"
        rows = parameter.grad.abs().flatten(1) if parameter.dim() > 1 else parameter.grad[:, None]
        assert rows.any(dim=1).all(), f"{name} has no gradient in some row"


def assert_associates(cell: nn.Module, encode: Callable[..., Tensor]) -> None:
    """Two values under two keys: which is under which can be told, and read back."""
    keys = torch.eye(2, 4).double() * 2  # k is scaled by 1/√4
    values = torch.randn(2, 4).double()
    nothing = torch.zeros(4).double()
    answers = []
    for stored in (values, values.flip(0)):
        state = cell.init_hidden(1)
        for k, v in zip(keys, stored, strict=True):
            state = cell(encode(q=nothing, k=k, v=v), *state)
        answers.append(
            torch.stack([cell(encode(q=k / 2, k=nothing, v=nothing), *state)[0][0] for k in keys])
        )
    told_apart = (answers[0] - answers[1]).abs().max() > 1e-6
    assert told_apart, "which value is under which key is lost"
    # sigmoid(30), the open forget and output gates, is 1 - 1e-13
    assert_close(answers[0], values, 1e-10)
    assert_close(answers[1], values.flip(0), 1e-10)


def encode(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Lay out the input of ``transparent``, with gates open (i = 1)."""
    gates = torch.tensor([0.0, 30.0, 30.0, 30.0, 30.0, 30.0]).double()
    return torch.cat([q, k, v, gates])[None]


@each_norm
@each_heads
def test_alive_at_initialization(num_heads: int | None, layer_norm: bool) -> None:
    assert_alive(mLSTMCell(3, 8, 0.0, layer_norm, num_heads=num_heads))


def test_stock_cell_is_dead_at_initialization(stock_cell: type[nn.Module]) -> None:
    with pytest.raises(AssertionError, match="dead"):
        assert_alive(stock_cell(3, 8, 0.0))


@each_norm
@each_heads
@pytest.mark.parametrize("hidden_size", [8, 16])
def test_every_parameter_matters(num_heads: int | None, layer_norm: bool, hidden_size: int) -> None:
    assert_all_parameters_matter(make_cell(num_heads, layer_norm, hidden_size=hidden_size).float())


@each_norm
@pytest.mark.parametrize(("hidden_size", "num_heads"), [(1, None), (1, 1), (2, None), (2, 1)])
def test_smallest_cells_are_alive(
    hidden_size: int, num_heads: int | None, layer_norm: bool
) -> None:
    cell = mLSTMCell(3, hidden_size, 0.0, layer_norm, num_heads=num_heads)
    assert_alive(cell)
    assert_all_parameters_matter(cell)


@each_norm
def test_stock_query_has_no_influence(stock_cell: type[nn.Module], layer_norm: bool) -> None:
    with pytest.raises(AssertionError, match="Wq.* has no influence"):
        assert_all_parameters_matter(stock_cell(3, 8, 0.0, layer_norm))


def test_cell_is_an_associative_memory() -> None:
    assert_associates(transparent(num_heads=1), encode)


def test_stock_cell_is_no_associative_memory(stock_cell: type[nn.Module]) -> None:
    cell = stock_cell(24, 4, 0.0, layer_norm=False).double()
    with torch.no_grad():
        for part, name in enumerate(["Wq", "Wk", "Wv", "Wi", "Wf", "Wo"]):
            linear = getattr(cell, name)
            linear.weight.copy_(torch.eye(24)[4 * part : 4 * part + 4])
            linear.bias.zero_()

    def encode_stock(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.cat([q, k, v, torch.full((12,), 30.0).double()])[None]

    cell.init_hidden = lambda batch: (torch.zeros(batch, 4).double(),) * 3
    with pytest.raises(AssertionError, match="lost"):
        assert_associates(cell, encode_stock)


# --- initialization


@each_norm
@pytest.mark.parametrize(("num_heads", "heads"), [(None, 8), (4, 4), (2, 2), (1, 1)])
def test_heads_start_with_memories_of_different_length(
    num_heads: int | None, heads: int, layer_norm: bool
) -> None:
    """The forget gate, measured as dn'/dn where only biases act, starts at σ(3) ... σ(6)."""
    cell = make_cell(num_heads, layer_norm)
    with torch.no_grad():
        cell.projection.weight.zero_()
        if layer_norm:
            cell.projection.bias.zero_()
    x = torch.randn(1, 3, dtype=torch.float64)
    h, c, n = cell.init_hidden(1)
    forget = cell(x, h, c, n + 1)[2] - cell(x, h, c, n)[2]
    logits = torch.logit(forget).reshape(heads, -1)
    assert_close(logits, logits[:, :1].expand_as(logits), 1e-6)  # one gate per head
    first, last = logits[0, 0].item(), logits[-1, 0].item()
    assert logits.min() > 3 - 1e-6 and logits.max() < 6 + 1e-6
    assert heads == 1 or (first, last) == pytest.approx((3, 6), abs=1e-6)
    assert (logits[:, 0].diff() > 0).all()


def test_seed_decides_weights_and_dropout() -> None:
    def draw(seed: int) -> tuple[Tensor, ...]:
        torch.manual_seed(seed)
        cell = mLSTMCell(3, 8, dropout=0.5)
        return (*cell.state_dict().values(), *cell(torch.ones(4, 3), *cell.init_hidden(4)))

    assert_identical(draw(3), draw(3))
    assert not torch.equal(draw(3)[0], draw(4)[0])


# --- dropout


def dropped(actual: Tensor, full: Tensor, rate: float) -> Tensor:
    """Where ``actual`` is 0; asserts that it is ``full / (1 - rate)`` elsewhere."""
    zero = actual == 0
    assert_close(actual[~zero], full[~zero] / (1 - rate))
    return zero


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_dropout_is_on_the_input_and_on_the_hidden_state(rate: float) -> None:
    cell = transparent(num_heads=2, dropout=rate)
    zeros = torch.zeros(5000, cell.input_size, dtype=torch.float64)
    full = cell.eval().init_hidden(5000)
    ones = tuple(part + 1 for part in full)

    # From no state, with gates at their zero, n is k: what is missing was dropped from the input.
    x = zeros.clone()
    x[:, 4:8] = 1
    expected_n = cell.eval()(x, *full)[2]
    missing = dropped(cell.train()(x, *full)[2], expected_n, rate)
    assert missing.double().mean().item() == pytest.approx(rate, abs=0.02)

    # An x of zeros is not changed by dropout, so what is missing was dropped from h. The state it
    # is read from is whole; q comes from a bias, which dropout does not reach.
    with torch.no_grad():
        cell.projection.bias[:4] = 1
    h, c, n = cell.eval()(zeros, *ones)
    h_dropped, c_kept, n_kept = cell.train()(zeros, *ones)
    missing = dropped(h_dropped, h, rate)
    assert missing.double().mean().item() == pytest.approx(rate, abs=0.02)
    assert_identical((c_kept, n_kept), (c, n))


def test_no_dropout_when_evaluating_or_zero() -> None:
    x = torch.randn(4, 3, dtype=torch.float64)
    cell = make_cell(dropout=0.5)
    plain = make_cell(dropout=0.0)
    plain.load_state_dict(cell.state_dict())
    state = cell.init_hidden(4)
    assert_identical(cell.eval()(x, *state), plain.train()(x, *state))
    assert not torch.equal(cell.train()(x, *state)[0], plain(x, *state)[0])


# --- precision


@each_norm
@each_heads
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_gives_float32_states(
    num_heads: int | None, layer_norm: bool, dtype: torch.dtype
) -> None:
    cell = mLSTMCell(3, 8, 0.0, layer_norm, num_heads=num_heads)
    xs = torch.randn(20, 64, 3)
    expected, _ = run(cell, xs, cell.init_hidden(64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h, state = run(cell, xs.to(dtype), cell.init_hidden(64))
    assert {part.dtype for part in state} == {torch.float32}
    # The projection is rounded to 8 bits before it is normalized and put through exp. In the root
    # mean square, as single units move more where |nᵀq| crosses 1 or a norm divides by little.
    assert (h - expected).square().mean() < (0.04**2) * expected.square().mean()


def test_autocast_does_not_round_the_state() -> None:
    """With a projection that bfloat16 holds exactly, 200 steps give float32's c and n."""
    cell = transparent(num_heads=1).float()
    xs = torch.randn(200, 4, cell.input_size)
    xs[..., 13] += 3  # a long memory, in which rounded states would drift
    xs = xs.bfloat16().float()
    expected_h, expected = run(cell, xs, cell.init_hidden(4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h, state = run(cell, xs, cell.init_hidden(4))
    assert_close(state[1:], expected[1:])
    assert_close(h.bfloat16(), expected_h.bfloat16())


@pytest.mark.parametrize(
    ("dtype", "state_dtype"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
    ids=str,
)
def test_states_are_as_wide_as_the_weights_and_float32_at_least(
    dtype: torch.dtype, state_dtype: torch.dtype
) -> None:
    cell = mLSTMCell(3, 8, 0.0).to(dtype)
    h, state = run(cell, torch.randn(5, 4, 3, dtype=dtype), cell.init_hidden(4))
    assert {part.dtype for part in state} == {state_dtype}
    assert h.isfinite().all() and h.any()


# --- saving


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "state_dict"])
def test_a_copy_gives_the_same(way: str) -> None:
    cell, other = make_cell(), make_cell()
    x, state = torch.randn(4, 3, dtype=torch.float64), cell.init_hidden(4)
    assert not torch.equal(cell(x, *state)[0], other(x, *state)[0])
    if way == "deepcopy":
        other = copy.deepcopy(cell)
    else:
        file = io.BytesIO()
        torch.save(cell if way == "pickle" else cell.state_dict(), file)
        file.seek(0)
        loaded = torch.load(file, weights_only=way == "state_dict")
        other = loaded if way == "pickle" else other
        if way == "state_dict":
            other.load_state_dict(loaded)
    assert_identical(other(x, *state), cell(x, *state))


# --- errors

BAD_ARGUMENTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no input": ({"input_size": 0}, ["input_size", "0"]),
    "no hidden": ({"hidden_size": 0}, ["hidden_size", "0"]),
    "negative": ({"hidden_size": -8}, ["hidden_size", "-8"]),
    "fraction": ({"hidden_size": 8.0}, ["hidden_size", "8.0"]),
    "no heads": ({"num_heads": 0}, ["num_heads", "0"]),
    "heads do not divide": ({"num_heads": 3}, ["hidden_size", "num_heads", "8", "3"]),
    "heads a fraction": ({"num_heads": 2.0}, ["num_heads", "2.0"]),
    "dropout of all": ({"dropout": 1.0}, ["dropout", "1.0"]),
    "dropout negative": ({"dropout": -0.1}, ["dropout", "-0.1"]),
    "dropout nan": ({"dropout": math.nan}, ["dropout", "nan"]),
    "dropout a word": ({"dropout": "no"}, ["dropout", "no"]),
    "layer_norm a word": ({"layer_norm": "no"}, ["layer_norm", "no"]),
}


@pytest.mark.parametrize(("options", "said"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_argument_is_explained(options: dict[str, Any], said: list[str]) -> None:
    settings = {"input_size": 3, "hidden_size": 8} | options
    assert_raises_mentioning(lambda: mLSTMCell(**settings), "mLSTMCell", *said)


def test_misspelt_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="heads"):
        mLSTMCell(3, 8, heads=4)  # type: ignore[call-arg]


BAD_INPUTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "sequence": ({"x": torch.zeros(5, 4, 3)}, ["x", "3", "(5, 4, 3)"]),
    "one sample": ({"x": torch.zeros(3)}, ["x", "(3,)"]),
    "width": ({"x": torch.zeros(4, 5)}, ["x", "3", "(4, 5)"]),
    "integers": ({"x": torch.zeros(4, 3, dtype=torch.int64)}, ["x", "int64", "float32"]),
    "double": ({"x": torch.zeros(4, 3).double()}, ["x", "float64", "float32"]),
    "x elsewhere": ({"x": torch.zeros(4, 3, device="meta")}, ["x", "meta", "cpu"]),
    "no tensor": ({"x": [[1.0, 2.0, 3.0]]}, ["x", "tensor", "list"]),
    "h width": ({"h_prev": torch.zeros(4, 3)}, ["h_prev", "(4, 8)", "(4, 3)"]),
    "n batch": ({"n_prev": torch.zeros(1, 8)}, ["n_prev", "(4, 8)", "(1, 8)"]),
    "c collapsed": ({"c_prev": torch.zeros(4, 8)}, ["c_prev", "(4, 2, 4, 4)", "(4, 8)"]),
    "c missing": ({"c_prev": None}, ["c_prev", "tensor", "NoneType"]),
    "c half": ({"c_prev": torch.zeros(4, 2, 4, 4).half()}, ["c_prev", "float16", "float32"]),
    "n double": ({"n_prev": torch.zeros(4, 8).double()}, ["n_prev", "float64", "float32"]),
    "h integers": ({"h_prev": torch.zeros(4, 8).int()}, ["h_prev", "int32", "float32"]),
    "h elsewhere": ({"h_prev": torch.zeros(4, 8, device="meta")}, ["h_prev", "meta", "cpu"]),
}


@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
@pytest.mark.parametrize(("parts", "said"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_bad_input_is_explained(parts: dict[str, Any], said: list[str], autocast: bool) -> None:
    cell = mLSTMCell(3, 8, num_heads=2)
    inputs = dict(zip(("h_prev", "c_prev", "n_prev"), cell.init_hidden(4), strict=True))
    inputs |= {"x": torch.zeros(4, 3)} | parts
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        assert_raises_mentioning(lambda: cell(**inputs), "mLSTMCell", *said)


@pytest.mark.parametrize("batch_size", [-1, 2.5, None])
def test_bad_batch_size_is_explained(batch_size: Any) -> None:
    cell = mLSTMCell(3, 8)
    assert_raises_mentioning(
        lambda: cell.init_hidden(batch_size), "mLSTMCell", "batch_size", str(batch_size)
    )
