"""register() extends pytorch-forecasting or raises, and unregister() reverts it."""

import copy
import importlib
import itertools
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from inspect import ismodule

import pytest
import pytorch_forecasting.models as upstream_models
import torch
from pytorch_forecasting._registry import all_objects
from torch import nn

from pytorch_forecasting_mlstm import register, unregister
from pytorch_forecasting_mlstm.layers import mLSTMCell
from pytorch_forecasting_mlstm.models import mLSTMTime, mLSTMTime_pkg

# Modules of pytorch-forecasting that hold the cell: its definition, its use, its re-exports.
CELL_MODULES = [
    importlib.import_module(f"pytorch_forecasting.layers{tail}")
    for tail in (
        "",
        "._recurrent",
        "._recurrent._mlstm",
        "._recurrent._mlstm.cell",
        "._recurrent._mlstm.layer",
    )
]
STOCK_CELL = CELL_MODULES[0].mLSTMCell
OPERATIONS = {
    "register": register,
    "replace": lambda: register(replace_stock_cell=True),
    "unregister": unregister,
}


def upstream_state() -> list[object]:
    """List the names that register() may change, with the identities of their objects.

    Modules are left out: all_objects imports all of pytorch-forecasting, which adds every module to
    its parent.
    """
    names = [
        {name: id(value) for name, value in vars(module).items() if not ismodule(value)}
        for module in (upstream_models, *CELL_MODULES)
    ]
    return [names, id(upstream_models.__all__), list(upstream_models.__all__)]


def listed_names() -> set[str]:
    return set(all_objects(return_names=True, as_dataframe=True)["name"])


@pytest.fixture(autouse=True)
def restored_upstream() -> Iterator[None]:
    before = upstream_state()
    yield
    unregister()
    assert upstream_state() == before


def test_register_adds_model_and_container() -> None:
    register()
    namespace: dict[str, object] = {}
    exec("from pytorch_forecasting.models import mLSTMTime", namespace)
    assert namespace["mLSTMTime"] is mLSTMTime
    assert upstream_models.mLSTMTime_pkg is mLSTMTime_pkg


def test_register_adds_the_model_to_star_imports() -> None:
    register()
    namespace: dict[str, object] = {}
    exec("from pytorch_forecasting.models import *", namespace)
    assert namespace["mLSTMTime"] is mLSTMTime
    assert "mLSTMTime_pkg" not in namespace  # as for the containers of pytorch-forecasting


def test_all_objects_follows_register_and_unregister() -> None:
    stock = listed_names()
    assert "mLSTMTime_pkg" not in stock
    register()  # after the first listing
    assert listed_names() == stock | {"mLSTMTime_pkg"}
    unregister()
    assert listed_names() == stock
    register()
    unregister()
    register()  # with no listing in between
    assert listed_names() == stock | {"mLSTMTime_pkg"}


def test_all_objects_filters_by_the_tags_of_the_container() -> None:
    register()
    names = all_objects(
        object_types="forecaster_pytorch_v1",
        filter_tags={"capability:exogenous": True},
        return_names=True,
    )
    assert ("mLSTMTime_pkg", mLSTMTime_pkg) in names


@pytest.mark.parametrize("operations", list(itertools.product(OPERATIONS, repeat=3)), ids="-".join)
def test_register_and_unregister_work_in_any_order(
    operations: tuple[str, ...],
) -> None:
    before = upstream_state()
    for operation in operations:
        OPERATIONS[operation]()
    in_effect = operations[::-1]
    if "unregister" in in_effect:
        in_effect = in_effect[: in_effect.index("unregister")]
    assert hasattr(upstream_models, "mLSTMTime") is bool(in_effect)
    assert hasattr(upstream_models, "mLSTMTime_pkg") is bool(in_effect)
    assert upstream_models.__all__.count("mLSTMTime") == bool(in_effect)
    cell = mLSTMCell if "replace" in in_effect else STOCK_CELL
    assert [module.mLSTMCell for module in CELL_MODULES] == [cell] * len(CELL_MODULES)
    unregister()
    assert upstream_state() == before


@pytest.mark.parametrize("name", ["mLSTMTime", "mLSTMTime_pkg"])
@pytest.mark.parametrize("foreign", [type("mLSTMTime", (), {}), None], ids=["class", "None"])
def test_register_does_not_shadow_a_foreign_name(
    name: str, foreign: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_models, name, foreign, raising=False)
    before = upstream_state()
    with pytest.raises(RuntimeError) as error:
        register(replace_stock_cell=True)
    assert upstream_state() == before
    unregister()
    assert upstream_state() == before  # unregister does not remove it either
    message = str(error.value)
    assert f"register: pytorch_forecasting.models.{name} must be free" in message
    assert f"got {foreign!r}" in message
    assert f"import {name} from pytorch_forecasting_mlstm" in message


@pytest.mark.parametrize("module", CELL_MODULES, ids=lambda module: module.__name__)
def test_register_does_not_replace_a_foreign_cell(
    module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Foreign(STOCK_CELL):
        pass

    monkeypatch.setattr(module, "mLSTMCell", Foreign)
    before = upstream_state()
    with pytest.raises(
        RuntimeError, match="must be pytorch-forecasting's own cell .* got .*Foreign"
    ):
        register(replace_stock_cell=True)
    assert upstream_state() == before
    register()  # registering the model does not conflict


def test_unregister_keeps_reassigned_names(monkeypatch: pytest.MonkeyPatch) -> None:
    register(replace_stock_cell=True)
    foreign = type("Foreign", (), {})
    with monkeypatch.context() as patch:
        patch.setattr(upstream_models, "mLSTMTime", foreign)
        patch.setattr(CELL_MODULES[0], "mLSTMCell", foreign)
        unregister()
        assert upstream_models.mLSTMTime is foreign
        assert CELL_MODULES[0].mLSTMCell is foreign
        assert CELL_MODULES[1].mLSTMCell is STOCK_CELL
    # Leaving the context has restored the classes of this package.
    upstream_models.__all__.remove("mLSTMTime")
    del upstream_models.mLSTMTime
    CELL_MODULES[0].mLSTMCell = STOCK_CELL


def test_register_requires_a_bool_keyword() -> None:
    with pytest.raises(TypeError, match="register: replace_stock_cell must be True or False"):
        register(replace_stock_cell="yes")
    with pytest.raises(TypeError, match="positional"):
        register(True)


@pytest.mark.parametrize("cls", [mLSTMTime, mLSTMTime_pkg, mLSTMCell])
def test_registered_classes_pickle_by_their_name_in_this_package(cls: type) -> None:
    before = pickle.dumps(cls)
    register(replace_stock_cell=True)
    assert pickle.dumps(cls) == before
    assert pickle.loads(before) is cls


def test_replaced_cell_is_available_from_the_documented_import() -> None:
    register(replace_stock_cell=True)
    namespace: dict[str, object] = {}
    exec("from pytorch_forecasting.layers._recurrent._mlstm.cell import mLSTMCell", namespace)
    assert namespace["mLSTMCell"] is mLSTMCell


def test_replaced_cell_makes_the_stock_layer_a_loop_over_its_cells() -> None:
    register(replace_stock_cell=True)
    layer = CELL_MODULES[0].mLSTMLayer(3, 8, 2, 0.0).double()
    x = torch.randn(20, 4, 3, dtype=torch.float64)
    output, _ = layer(x)

    first, second = (cell.init_hidden(4) for cell in layer.cells)
    for x_t, output_t in zip(x, output, strict=True):
        first = layer.cells[0](x_t, *first)
        second = layer.cells[1](first[0], *second)
        torch.testing.assert_close(output_t, first[0] + second[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("layer_norm", [True, False])
def test_replaced_cell_gives_the_stock_layer_a_memory(layer_norm: bool) -> None:
    """The last output depends on the first input, and all weights of the memory get gradients."""
    register(replace_stock_cell=True)
    layer = CELL_MODULES[0].mLSTMLayer(3, 8, 2, 0.0, layer_norm)
    assert all(type(cell) is mLSTMCell for cell in layer.cells)
    x = torch.randn(20, 4, 3, requires_grad=True)
    output, _ = layer(x)
    output[-1].square().sum().backward()
    assert x.grad[0].abs().max() > 1e-4
    for name, parameter in layer.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-4, name
        if name.endswith("projection.weight"):
            query = parameter.grad[: layer.hidden_size]
            assert query.abs().max() > 1e-4, name


def test_stock_cell_gives_the_stock_layer_no_memory() -> None:
    """The control: the test above fails for the stock cell."""
    layer = CELL_MODULES[0].mLSTMLayer(3, 8, 2, 0.0)
    x = torch.randn(20, 4, 3, requires_grad=True)
    layer(x)[0][-1].square().sum().backward()
    assert x.grad[0].abs().max() < 1e-6
    assert layer.cells[0].Wq.weight.grad is None


@pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of `nn.Module`")
def test_replaced_cell_runs_and_learns_in_stock_network_and_model() -> None:
    register(replace_stock_cell=True)
    network = CELL_MODULES[0].mLSTMNetwork(3, 8, 2, output_size=5)
    output, state = network(torch.randn(7, 4, 3))
    assert output.shape == (4, 5)
    continued, _ = network(torch.randn(7, 4, 3), *state)  # it accepts the state that it returned
    assert continued.isfinite().all()

    model = upstream_models.xLSTMTime(
        input_size=1, hidden_size=8, output_size=5, xlstm_type="mlstm", num_layers=2, dropout=0.0
    )
    cells = [module for module in model.modules() if type(module) is mLSTMCell]
    assert len(cells) == 2
    model({"encoder_cont": torch.randn(4, 30, 1)}).prediction.square().sum().backward()
    # Its InstanceNorm hides the scale from the loss, so this asserts only that a gradient arrives.
    for cell in cells:
        assert cell.projection.weight.grad.abs().max() > 0


def test_replaced_cell_does_not_change_existing_objects() -> None:
    before = CELL_MODULES[0].mLSTMLayer(3, 8, 1)
    register(replace_stock_cell=True)
    during = CELL_MODULES[0].mLSTMLayer(3, 8, 1)
    unregister()
    after = CELL_MODULES[0].mLSTMLayer(3, 8, 1)
    assert [type(layer.cells[0]) for layer in (before, during, after)] == [
        STOCK_CELL,
        mLSTMCell,
        STOCK_CELL,
    ]
    copied = copy.deepcopy(during)
    assert isinstance(copied, nn.Module)
    assert type(copied.cells[0]) is mLSTMCell


@pytest.mark.slow
def test_import_changes_nothing_in_pytorch_forecasting() -> None:
    script = """
        import sys
        import types
        import pytorch_forecasting, pytorch_forecasting.layers, pytorch_forecasting.models

        def state():
            return {
                (module, name): id(value)
                for module, content in list(sys.modules.items())
                if module.split(".")[0] in ("pytorch_forecasting", "skbase", "lightning")
                for name, value in vars(content).items()
                # the first import of a submodule adds it to its parent
                if not isinstance(value, types.ModuleType)
            }

        before, exported = state(), list(pytorch_forecasting.models.__all__)
        import pytorch_forecasting_mlstm
        import pytorch_forecasting_mlstm._registry
        import pytorch_forecasting_mlstm.layers
        import pytorch_forecasting_mlstm.models
        after = state()
        changed = [key for key in before if after.get(key) != before[key]]
        loaded = {module for module, _ in before}
        added = [key for key in after if key not in before and key[0] in loaded]
        assert not changed, changed
        assert not added, added
        assert pytorch_forecasting.models.__all__ == exported
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=300)
