"""The cell has the documented interface, follows the paper's equations, and recalls values."""

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
from pytorch_forecasting_mlstm import use_kernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.cell import mLSTMCell

State = tuple[Tensor, Tensor, Tensor]

parametrize_norm = pytest.mark.parametrize("layer_norm", [True, False], ids=["norm", "no-norm"])
parametrize_heads = pytest.mark.parametrize("num_heads", [None, 1, 2, 8], ids="heads-{}".format)


@pytest.fixture(autouse=True, params=["default", "PyTorch"])
def backend(request: pytest.FixtureRequest) -> None:
    """Run all of these tests with what is used by default, which may be the kernel, and without."""
    if request.param == "PyTorch":
        use_kernel(False)


def make_cell(num_heads: int | None = 2, layer_norm: bool = True, **options: Any) -> mLSTMCell:
    """Build a float64 cell with 3 inputs, 8 hidden units and no dropout."""
    settings = {"input_size": 3, "hidden_size": 8, "dropout": 0.0} | options
    return mLSTMCell(**settings, layer_norm=layer_norm, num_heads=num_heads).double()


def perturb(module: nn.Module) -> None:
    """Change every parameter from its initial value, so that no gain is 1 and no offset 0."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))


def run(cell: Callable[..., State], xs: Tensor, state: State) -> tuple[Tensor, State]:
    """Step through ``xs`` (T, B, input); return the stacked h of all steps and the last state."""
    outputs = []
    for x in xs:
        state = cell(x, *state)
        outputs.append(state[0])
    return torch.stack(outputs), state


def identity_cell(num_heads: int | None, hidden_size: int = 4, dropout: float = 0.0) -> mLSTMCell:
    """Build a cell whose projection is the identity: its input is q, k, v, i, f, o in a row."""
    heads = num_heads or hidden_size
    width = 4 * hidden_size + 2 * heads
    cell = mLSTMCell(width, hidden_size, dropout, layer_norm=False, num_heads=num_heads).double()
    with torch.no_grad():
        cell.projection.weight.copy_(torch.eye(width))
        cell.projection.bias.zero_()
    return cell


# --- the interface


def test_signatures_match_the_documentation() -> None:
    def signature(function: Callable[..., Any]) -> list[str]:
        return [str(p).split(":")[0] for p in inspect.signature(function).parameters.values()]

    defaults = {name: p.default for name, p in inspect.signature(mLSTMCell).parameters.items()}
    names = ["input_size", "hidden_size", "dropout", "layer_norm", "num_heads", "norm_heads"]
    assert list(defaults) == names
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


def test_tensors_of_the_empty_state_share_no_memory() -> None:
    h, c, n = mLSTMCell(3, 8).init_hidden(2)
    h += 1
    assert not c.any() and not n.any()


def test_init_hidden_follows_the_device() -> None:
    cell = mLSTMCell(3, 8)
    assert {part.device.type for part in cell.init_hidden(2)} == {"cpu"}
    assert {part.device.type for part in cell.init_hidden(2, device="meta")} == {"meta"}
    assert {part.device.type for part in cell.to("meta").init_hidden(2)} == {"meta"}


@parametrize_norm
@parametrize_heads
def test_cell_matches_the_equations(num_heads: int | None, layer_norm: bool) -> None:
    """Outputs, true states and all gradients over five steps, from a state that is not empty."""
    cell = make_cell(num_heads, layer_norm)
    perturb(cell)
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
    coefficients = [torch.randn_like(part) for part in results]

    def gradients_of(results: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        loss = sum((w * z).sum() for w, z in zip(coefficients, results, strict=True))
        return torch.autograd.grad(loss, inputs)

    gradients, expected_gradients = map(gradients_of, (results, expected_results))
    assert_close(gradients, expected_gradients)


@parametrize_norm
def test_num_heads_none_means_one_head_per_unit(layer_norm: bool) -> None:
    cell, cell_with_heads = make_cell(None, layer_norm), make_cell(8, layer_norm)
    cell_with_heads.load_state_dict(cell.state_dict())
    xs = torch.randn(5, 4, 3, dtype=torch.float64)
    h, state = run(cell, xs, cell.init_hidden(4))
    expected_h, expected = run(cell_with_heads, xs, cell_with_heads.init_hidden(4))
    assert_identical((h, state[1][..., None, None], state[2]), (expected_h, *expected[1:]))


@parametrize_heads
def test_previous_hidden_state_has_no_influence(num_heads: int | None) -> None:
    cell = make_cell(num_heads)
    x = torch.randn(4, 3, dtype=torch.float64)
    h, c, n = cell.init_hidden(4)
    assert_identical(cell(x, torch.full_like(h, math.nan), c, n), cell(x, h, c, n))


def test_inputs_stay_unchanged() -> None:
    cell = make_cell()
    inputs = (torch.randn(4, 3).double(), *(part + 1 for part in cell.init_hidden(4)))
    original = tuple(part.clone() for part in inputs)
    cell(*inputs)
    assert_identical(inputs, original)


@pytest.mark.parametrize("scale", [1e3, -1e3])
def test_input_gate_is_capped(scale: float) -> None:
    """At exp(±15), the limit of exp(15 tanh(z / 15)); the forget gate is 0.5 and k is 1."""
    cell = identity_cell(num_heads=2)
    x = torch.zeros(1, cell.input_size, dtype=torch.float64)
    x[:, 4:8] = math.sqrt(2)
    x[:, 12:14] = scale
    _, _, n = cell(x, *cell.init_hidden(1))
    assert_close(n, torch.full_like(n, math.exp(math.copysign(15, scale))))


def test_true_states_fit_float32_at_the_largest_gates() -> None:
    cell = identity_cell(num_heads=1).float()
    x = torch.randn(500, 3, cell.input_size)
    x[..., 12:14] = 1e3
    h, state = run(cell, x, cell.init_hidden(3))
    assert all(part.isfinite().all() for part in (h, *state))


# --- defects of the stock cell that this cell must not have


@pytest.fixture
def stock_cell() -> type[nn.Module]:
    """Return the cell of pytorch-forecasting 1.8."""
    if not version("pytorch-forecasting").startswith("1.8."):
        pytest.skip("other versions of pytorch-forecasting may not have the defects of 1.8")
    from pytorch_forecasting.layers._recurrent._mlstm.cell import mLSTMCell as StockCell

    assert StockCell is not mLSTMCell, "an earlier test did not restore the stock cell"
    return StockCell


def assert_alive(cell: nn.Module) -> None:
    """Assert that the output of an untrained cell depends on its input."""
    h, _ = run(cell, torch.randn(20, 64, cell.input_size), cell.init_hidden(64))
    assert h[-1].std(0).max() > 0.01, "dead at initialization"


def assert_all_parameters_matter(cell: nn.Module) -> None:
    """Assert that every row of every weight has a finite gradient that is not 0."""
    h, _ = run(cell, torch.randn(6, 16, cell.input_size), cell.init_hidden(16))
    (h * torch.randn_like(h)).sum().backward()
    for name, parameter in cell.named_parameters():
        assert parameter.grad is not None, f"{name} has no influence"
        assert parameter.grad.isfinite().all(), f"{name} has a gradient that is not finite"
        rows = parameter.grad.abs().flatten(1) if parameter.dim() > 1 else parameter.grad[:, None]
        assert rows.any(dim=1).all(), f"{name} has no gradient in some row"


def assert_associates(cell: nn.Module, encode: Callable[..., Tensor]) -> None:
    """Assert that two values stored under two keys can be recalled, whichever key has which."""
    keys = torch.eye(2, 4).double() * 2  # k is scaled by 1/√4
    values = torch.randn(2, 4).double()
    zeros = torch.zeros(4).double()
    recalled = []
    for ordered_values in (values, values.flip(0)):
        state = cell.init_hidden(1)
        for k, v in zip(keys, ordered_values, strict=True):
            state = cell(encode(q=zeros, k=k, v=v), *state)
        recalled.append(
            torch.stack([cell(encode(q=k / 2, k=zeros, v=zeros), *state)[0][0] for k in keys])
        )
    is_distinct = (recalled[0] - recalled[1]).abs().max() > 1e-6
    assert is_distinct, "the association of values with keys is lost"
    # the open forget and output gates are sigmoid(30), which is 1 - 1e-13
    assert_close(recalled[0], values, 1e-10)
    assert_close(recalled[1], values.flip(0), 1e-10)


def encode(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the input of ``identity_cell`` for q, k and v, with open gates (i = 1)."""
    gates = torch.tensor([0.0, 30.0, 30.0, 30.0, 30.0, 30.0]).double()
    return torch.cat([q, k, v, gates])[None]


@parametrize_norm
@parametrize_heads
def test_untrained_cell_is_alive(num_heads: int | None, layer_norm: bool) -> None:
    assert_alive(mLSTMCell(3, 8, 0.0, layer_norm, num_heads=num_heads))


def test_stock_cell_is_dead_at_initialization(stock_cell: type[nn.Module]) -> None:
    with pytest.raises(AssertionError, match="dead"):
        assert_alive(stock_cell(3, 8, 0.0))


@parametrize_norm
@parametrize_heads
@pytest.mark.parametrize("hidden_size", [8, 16])
def test_every_parameter_has_a_gradient(
    num_heads: int | None, layer_norm: bool, hidden_size: int
) -> None:
    assert_all_parameters_matter(make_cell(num_heads, layer_norm, hidden_size=hidden_size).float())


@parametrize_norm
@pytest.mark.parametrize(("hidden_size", "num_heads"), [(1, None), (1, 1), (2, None), (2, 1)])
def test_smallest_cells_are_alive(
    hidden_size: int, num_heads: int | None, layer_norm: bool
) -> None:
    cell = mLSTMCell(3, hidden_size, 0.0, layer_norm, num_heads=num_heads)
    assert_alive(cell)
    assert_all_parameters_matter(cell)


@parametrize_norm
def test_stock_query_has_no_influence(stock_cell: type[nn.Module], layer_norm: bool) -> None:
    with pytest.raises(AssertionError, match="Wq.* has no influence"):
        assert_all_parameters_matter(stock_cell(3, 8, 0.0, layer_norm))


def test_cell_is_an_associative_memory() -> None:
    assert_associates(identity_cell(num_heads=1), encode)


def test_stock_cell_is_not_an_associative_memory(stock_cell: type[nn.Module]) -> None:
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


@parametrize_norm
@pytest.mark.parametrize(("num_heads", "heads"), [(None, 8), (4, 4), (2, 2), (1, 1)])
def test_heads_start_with_memories_of_different_length(
    num_heads: int | None, heads: int, layer_norm: bool
) -> None:
    """With biases only, the forget gates of the heads, measured as dn'/dn, are σ(3) to σ(6)."""
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


def test_seed_determines_weights_and_dropout() -> None:
    def draw(seed: int) -> tuple[Tensor, ...]:
        torch.manual_seed(seed)
        cell = mLSTMCell(3, 8, dropout=0.5)
        return (*cell.state_dict().values(), *cell(torch.ones(4, 3), *cell.init_hidden(4)))

    assert_identical(draw(3), draw(3))
    assert not torch.equal(draw(3)[0], draw(4)[0])


# --- dropout


def dropout_mask(actual: Tensor, full: Tensor, rate: float) -> Tensor:
    """Return where ``actual`` is 0, and assert that it is ``full / (1 - rate)`` elsewhere."""
    is_zero = actual == 0
    assert_close(actual[~is_zero], full[~is_zero] / (1 - rate))
    return is_zero


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_dropout_applies_to_input_and_hidden_state(rate: float) -> None:
    cell = identity_cell(num_heads=2, dropout=rate)
    zeros = torch.zeros(5000, cell.input_size, dtype=torch.float64)
    empty = cell.eval().init_hidden(5000)
    ones = tuple(part + 1 for part in empty)

    # From an empty state with gate pre-activations of 0, n is k: zeros are dropped inputs.
    x = zeros.clone()
    x[:, 4:8] = 1
    expected_n = cell.eval()(x, *empty)[2]
    dropped = dropout_mask(cell.train()(x, *empty)[2], expected_n, rate)
    assert dropped.double().mean().item() == pytest.approx(rate, abs=0.02)

    # Dropout does not change an x of zeros, so zeros are dropped from h. Dropout does not reach the
    # state that h is read from, nor q, which comes from a bias.
    with torch.no_grad():
        cell.projection.bias[:4] = 1
    h, c, n = cell.eval()(zeros, *ones)
    h_train, c_train, n_train = cell.train()(zeros, *ones)
    dropped = dropout_mask(h_train, h, rate)
    assert dropped.double().mean().item() == pytest.approx(rate, abs=0.02)
    assert_identical((c_train, n_train), (c, n))


def test_no_dropout_in_evaluation_mode_or_at_rate_zero() -> None:
    x = torch.randn(4, 3, dtype=torch.float64)
    cell = make_cell(dropout=0.5)
    cell_without_dropout = make_cell(dropout=0.0)
    cell_without_dropout.load_state_dict(cell.state_dict())
    state = cell.init_hidden(4)
    assert_identical(cell.eval()(x, *state), cell_without_dropout.train()(x, *state))
    assert not torch.equal(cell.train()(x, *state)[0], cell_without_dropout(x, *state)[0])


# --- precision


@parametrize_norm
@parametrize_heads
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
    # The projection is rounded to 8 bits before normalization and exp. The root mean square is
    # compared, since single units change more where |nᵀq| crosses 1 or a norm is small.
    assert (h - expected).square().mean() < (0.04**2) * expected.square().mean()


def test_autocast_does_not_round_the_state() -> None:
    """If bfloat16 represents the projection exactly, 200 steps give the c and n of float32."""
    cell = identity_cell(num_heads=1).float()
    xs = torch.randn(200, 4, cell.input_size)
    xs[..., 13] += 3  # a long memory, in which rounding errors of states would accumulate
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
def test_states_have_the_precision_of_the_weights_and_at_least_float32(
    dtype: torch.dtype, state_dtype: torch.dtype
) -> None:
    cell = mLSTMCell(3, 8, 0.0).to(dtype)
    h, state = run(cell, torch.randn(5, 4, 3, dtype=dtype), cell.init_hidden(4))
    assert {part.dtype for part in state} == {state_dtype}
    assert h.isfinite().all() and h.any()


# --- saving


@pytest.mark.parametrize("method", ["deepcopy", "pickle", "state_dict"])
def test_copied_cell_gives_the_same_output(method: str) -> None:
    cell, cell_copy = make_cell(), make_cell()
    x, state = torch.randn(4, 3, dtype=torch.float64), cell.init_hidden(4)
    assert not torch.equal(cell(x, *state)[0], cell_copy(x, *state)[0])
    file = io.BytesIO()
    if method == "deepcopy":
        cell_copy = copy.deepcopy(cell)
    elif method == "pickle":
        torch.save(cell, file)
        file.seek(0)
        cell_copy = torch.load(file, weights_only=False)
    else:
        torch.save(cell.state_dict(), file)
        file.seek(0)
        cell_copy.load_state_dict(torch.load(file, weights_only=True))
    assert_identical(cell_copy(x, *state), cell(x, *state))


# --- errors

INVALID_ARGUMENTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no input": ({"input_size": 0}, ["input_size", "0"]),
    "no hidden": ({"hidden_size": 0}, ["hidden_size", "0"]),
    "negative": ({"hidden_size": -8}, ["hidden_size", "-8"]),
    "fraction": ({"hidden_size": 8.0}, ["hidden_size", "8.0"]),
    "no heads": ({"num_heads": 0}, ["num_heads", "0"]),
    "heads do not divide": ({"num_heads": 3}, ["hidden_size", "num_heads", "8", "3"]),
    "fractional heads": ({"num_heads": 2.0}, ["num_heads", "2.0"]),
    "dropout of 1": ({"dropout": 1.0}, ["dropout", "1.0"]),
    "dropout negative": ({"dropout": -0.1}, ["dropout", "-0.1"]),
    "dropout nan": ({"dropout": math.nan}, ["dropout", "nan"]),
    "dropout not a number": ({"dropout": "no"}, ["dropout", "no"]),
    "layer_norm not a bool": ({"layer_norm": "no"}, ["layer_norm", "no"]),
}


@pytest.mark.parametrize(("options", "words"), INVALID_ARGUMENTS.values(), ids=INVALID_ARGUMENTS)
def test_invalid_argument_raises(options: dict[str, Any], words: list[str]) -> None:
    settings = {"input_size": 3, "hidden_size": 8} | options
    assert_raises_mentioning(lambda: mLSTMCell(**settings), "mLSTMCell", *words)


def test_misspelled_argument_raises() -> None:
    with pytest.raises(TypeError, match="heads"):
        mLSTMCell(3, 8, heads=4)  # type: ignore[call-arg]


INVALID_INPUTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "sequence": ({"x": torch.zeros(5, 4, 3)}, ["x", "3", "(5, 4, 3)"]),
    "one sample": ({"x": torch.zeros(3)}, ["x", "(3,)"]),
    "width": ({"x": torch.zeros(4, 5)}, ["x", "3", "(4, 5)"]),
    "integers": ({"x": torch.zeros(4, 3, dtype=torch.int64)}, ["x", "int64", "float32"]),
    "double": ({"x": torch.zeros(4, 3).double()}, ["x", "float64", "float32"]),
    "x on another device": ({"x": torch.zeros(4, 3, device="meta")}, ["x", "meta", "cpu"]),
    "x not a tensor": ({"x": [[1.0, 2.0, 3.0]]}, ["x", "tensor", "list"]),
    "h width": ({"h_prev": torch.zeros(4, 3)}, ["h_prev", "(4, 8)", "(4, 3)"]),
    "n batch": ({"n_prev": torch.zeros(1, 8)}, ["n_prev", "(4, 8)", "(1, 8)"]),
    "c collapsed": ({"c_prev": torch.zeros(4, 8)}, ["c_prev", "(4, 2, 4, 4)", "(4, 8)"]),
    "c missing": ({"c_prev": None}, ["c_prev", "tensor", "NoneType"]),
    "c half": ({"c_prev": torch.zeros(4, 2, 4, 4).half()}, ["c_prev", "float16", "float32"]),
    "n double": ({"n_prev": torch.zeros(4, 8).double()}, ["n_prev", "float64", "float32"]),
    "h integers": ({"h_prev": torch.zeros(4, 8).int()}, ["h_prev", "int32", "float32"]),
    "h on another device": (
        {"h_prev": torch.zeros(4, 8, device="meta")},
        ["h_prev", "meta", "cpu"],
    ),
}


@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
@pytest.mark.parametrize(("parts", "words"), INVALID_INPUTS.values(), ids=INVALID_INPUTS)
def test_invalid_input_raises(parts: dict[str, Any], words: list[str], autocast: bool) -> None:
    cell = mLSTMCell(3, 8, num_heads=2)
    inputs = dict(zip(("h_prev", "c_prev", "n_prev"), cell.init_hidden(4), strict=True))
    inputs |= {"x": torch.zeros(4, 3)} | parts
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        assert_raises_mentioning(lambda: cell(**inputs), "mLSTMCell", *words)


@pytest.mark.parametrize("batch_size", [-1, 2.5, None])
def test_invalid_batch_size_raises(batch_size: Any) -> None:
    cell = mLSTMCell(3, 8)
    assert_raises_mentioning(
        lambda: cell.init_hidden(batch_size), "mLSTMCell", "batch_size", str(batch_size)
    )
