"""What the package imports of pytorch-forecasting is there.

Without one of these names the package cannot be imported, and neither can the tests that use it.
So this file reads the sources, and imports pytorch-forecasting alone: each name has a test, which
fails by this name.
"""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from helpers.upstream import needs_adapter

PACKAGE = Path(__file__).parents[1] / "pytorch_forecasting_mlstm"
UPSTREAM = "pytorch_forecasting"


def imports(tree: ast.AST) -> Iterator[tuple[str, str, str]]:
    """Yield the module, the name and the local name of what is imported of pytorch-forecasting."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module.partition(".")[0] == UPSTREAM:
                for alias in node.names:
                    yield node.module, alias.name, alias.asname or alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == UPSTREAM:
                    yield alias.name, "", alias.asname or alias.name


def imported_names() -> set[tuple[str, str]]:
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in PACKAGE.rglob("*.py")]
    return {(module, name) for tree in trees for module, name, _ in imports(tree)}


def read_names() -> set[tuple[str, str, str]]:
    """Return what _upstream.py reads of what it imports: modules, their names, alternatives."""
    tree = ast.parse((PACKAGE / "_upstream.py").read_text(encoding="utf-8"))
    sources = {local: (module, name) for module, name, local in imports(tree)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in sources:
                found.add((*sources[node.value.id], node.attr))
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_first":
            module, *names = node.args
            alternatives = " or ".join(ast.literal_eval(name) for name in names)
            found.add((*sources[ast.unparse(module)], alternatives))
    return found


def lookup(module: str, name: str) -> object:
    found = import_module(module)
    if name and not hasattr(found, name):  # a submodule is an attribute once it is imported
        return import_module(f"{module}.{name}")
    return getattr(found, name) if name else found


@pytest.mark.parametrize(("module", "name"), sorted(imported_names()))
def test_import_exists(module: str, name: str) -> None:
    lookup(module, name)


@pytest.mark.parametrize(("module", "name", "attributes"), sorted(read_names()))
def test_what_is_read_exists(module: str, name: str, attributes: str) -> None:
    assert any(hasattr(lookup(module, name), part) for part in attributes.split(" or "))


@needs_adapter
def test_adapter_of_losses_exists() -> None:
    """The package works without it, as before 1.9, but then does not know what users adapt."""
    assert hasattr(import_module("pytorch_forecasting.metrics"), "NNLossAdapter")


def test_all_imports_are_found() -> None:
    """Those of each form, of private names, inside of functions and under other names."""
    assert {
        ("pytorch_forecasting.data.timeseries", "_find_end_indices"),
        ("pytorch_forecasting.metrics.base_metrics", "_base_metrics"),
        ("pytorch_forecasting.models.base._base_model", "PredictCallback"),
    } < imported_names()
    assert {name for *_, name in read_names()} == {
        "CHECKPOINT_HYPER_PARAMS_KEY",
        "CHECKPOINT_HYPER_PARAMS_SPECIAL_KEY",
        "CHECKPOINT_HYPER_PARAMS_TYPE",
        "coerce_to_pytorch_forecasting_metric or convert_torchmetric_to_pytorch_forecasting_metric",
    }
    code = (
        "import pytorch_forecasting.data as d\ndef f():\n    from pytorch_forecasting import a as b"
    )
    assert set(imports(ast.parse(code))) == {
        ("pytorch_forecasting.data", "", "d"),
        ("pytorch_forecasting", "a", "b"),
    }
