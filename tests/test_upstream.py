"""What the package uses of pytorch-forecasting beyond its documented interface.

Each name has a test, which fails by this name when a release of pytorch-forecasting lacks it. Those
of what is imported are in test_upstream_imports.py, which runs also where an import fails:

    make test PTF_SOURCE=/path/to/pytorch-forecasting \\
        ARGS="tests/test_upstream_imports.py tests/test_upstream.py"
"""

import ast
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_forecasting
from pytorch_forecasting import EncoderNormalizer, GroupNormalizer
from pytorch_forecasting.metrics import MAE, RMSE, SMAPE, NormalDistributionLoss
from torch import nn

from helpers.datasets import collate, configured, make_dataset, make_table, pick_samples
from helpers.models import SMALL
from helpers.upstream import IS_1_9
from pytorch_forecasting_mlstm import _upstream, mLSTMTime
from pytorch_forecasting_mlstm._upstream import (
    ATTRIBUTES,
    CELL_MODULES,
    DATA_KEYS,
    HOOKS,
    INDEX_COLUMNS,
    MODELS,
    MQF2_MODULE,
    NNLossAdapter,
    PredictCallback,
)

PACKAGE = Path(_upstream.__file__).parent
UPSTREAM = Path(pytorch_forecasting.__file__).parent

# What is listed exists


@cache
def example(owner: str) -> Any:
    """Make an object of a class of pytorch-forecasting, or of one that derives from it."""
    if owner == "TimeSeriesDataSet":
        return make_dataset(time_varying_known_reals=["price"])
    if owner == "GroupNormalizer":
        return GroupNormalizer(groups=["series"]).fit(make_table()["y"], make_table())
    if owner == "EncoderNormalizer":
        return EncoderNormalizer()
    if owner == "CompositeMetric":
        return SMAPE() + MAE()
    if owner == "NormalDistributionLoss":
        loss = NormalDistributionLoss()
        loss.rescale_parameters(
            parameters=nn.Parameter(make_batch().y[0][..., None].expand(-1, -1, 2)),
            target_scale=make_batch().x["target_scale"],
            encoder=GroupNormalizer(),
        )
        return loss
    if owner == "NNLossAdapter":
        return NNLossAdapter(nn.L1Loss())
    if owner == "PredictCallback":
        return PredictCallback()
    assert owner == "mLSTMTime", f"make an example of {owner} here"
    return mLSTMTime.from_dataset(configured("no covariates"), **SMALL)


def make_batch() -> SimpleNamespace:
    x, y = collate(pick_samples(configured("no covariates")))
    return SimpleNamespace(x=x, y=y)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(owner, name) for owner, names in ATTRIBUTES.items() for name in names],
    ids=lambda value: value,
)
def test_attribute_exists(owner: str, name: str) -> None:
    if owner == "NNLossAdapter" and not IS_1_9:
        pytest.skip("before pytorch-forecasting 1.9")
    assert hasattr(example(owner), name)


@pytest.mark.parametrize("name", HOOKS)
def test_hook_is_looked_up(name: str) -> None:
    nodes = [node for tree in source_trees().values() for node in ast.walk(tree)]
    assert any(isinstance(node, ast.Attribute) and node.attr == name for node in nodes)


@pytest.mark.parametrize("name", INDEX_COLUMNS)
def test_index_has_column(name: str) -> None:
    assert name in example("TimeSeriesDataSet").index


@pytest.mark.parametrize("name", DATA_KEYS)
def test_data_have_key(name: str) -> None:
    assert name in example("TimeSeriesDataSet").data


@pytest.mark.parametrize("name", [*CELL_MODULES, MODELS, MQF2_MODULE])
def test_module_exists(name: str) -> None:
    assert find_spec(name) is not None
    if name in CELL_MODULES:
        assert hasattr(import_module(name), "mLSTMCell")


def test_a_name_that_is_gone_is_reported() -> None:
    with pytest.raises(ImportError, match=r"needs old or new of pytorch_forecasting\.metrics, got"):
        _upstream._first(pytorch_forecasting.metrics, "old", "new")


@pytest.mark.parametrize("present", [["old"], ["new"], ["old", "new"]])
def test_a_renamed_name_is_found(present: list[str]) -> None:
    module = SimpleNamespace(__name__="module", **{name: name for name in present})
    assert _upstream._first(module, "new", "old") == present[-1]


# What is used is listed


def trees(folder: Path) -> dict[Path, ast.AST]:
    return {
        file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(folder.rglob("*.py"))
    }


@cache
def source_trees() -> dict[Path, ast.AST]:
    return trees(UPSTREAM)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_everything_else_is_imported_from_public_modules() -> None:
    undocumented = set()
    for file, tree in trees(PACKAGE).items():
        if file.name == "_upstream.py":
            continue
        for node in ast.walk(tree):
            modules = []
            if isinstance(node, ast.Import):
                modules = [(alias.name, "*") for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                modules = [(node.module, alias.name) for alias in node.names]
            for module, name in modules:
                if module.partition(".")[0] != "pytorch_forecasting":
                    continue
                public = getattr(import_module(module), "__all__", [])
                parts = [*module.split("."), name]
                submodule = name != "*" and find_spec(f"{module}.{name}") is not None
                if any(map(is_private, parts)) or not (name in public or submodule):
                    undocumented.add((file.name, module, name))
    assert not undocumented


def defined_names(tree: ast.AST) -> set[str]:
    """Return the private names of functions, classes and attributes that a module defines."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return set(filter(is_private, names))


def used_names(tree: ast.AST) -> set[str]:
    """Return the names of attributes and methods in a module, also those that are in strings.

    A string may be an argument of getattr, or be kept for one: "_groups", or "_groups _lags".
    """
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    within_text = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            names |= {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            words = node.value.split()
            if id(node) not in within_text and all(word.isidentifier() for word in words):
                names.update(words)
    return names


@pytest.mark.parametrize(
    "code",
    [
        "x._a",
        "class X:\n    def _a(self): pass",
        "getattr(x, '_a', [])",
        "setattr(x, '_a', 1)",
        "hasattr(x, '_a')",
        "operator.attrgetter('_a')",
        "for name in ('_a', '_b'): getattr(x, name)",
        "for name in '_a _b'.split(): getattr(x, name)",
    ],
)
def test_every_use_of_an_attribute_is_seen(code: str) -> None:
    assert "_a" in used_names(ast.parse(code))
    assert "_a" not in used_names(ast.parse("name = f'{part}_a'"))


def test_every_private_attribute_is_listed() -> None:
    """Names that pytorch-forecasting defines, and that are read, called or overridden here."""
    upstream = set().union(*map(defined_names, source_trees().values()))
    listed = {name for names in ATTRIBUTES.values() for name in names} | set(HOOKS)
    unlisted = set()
    for file, tree in trees(PACKAGE).items():
        if file.parent.name == "sktime":  # private names of sktime, to whose classes these belong
            continue
        unlisted |= {(file.name, name) for name in used_names(tree) & upstream - listed}
    assert not unlisted


# Sums of metrics, which 1.8 changes in place, and later releases do not


def test_a_loss_that_the_user_adds_to_does_not_change_the_model() -> None:
    loss = SMAPE() + MAE()
    model = mLSTMTime.from_dataset(configured("no covariates"), loss=loss, **SMALL)
    for changed in (loss + RMSE(), 3.0 * loss):
        assert changed is not model.loss
    assert [type(part) for part in model.loss._metrics] == [SMAPE, MAE]
    assert list(model.loss._weights) == [1.0, 1.0]


def test_a_sum_of_the_models_loss_is_a_loss() -> None:
    dataset = configured("no covariates")
    first = mLSTMTime.from_dataset(dataset, loss=SMAPE() + MAE(), **SMALL)
    second = mLSTMTime.from_dataset(dataset, loss=2.0 * (first.loss + RMSE()), **SMALL)
    assert [type(part) for part in second.loss._metrics] == [SMAPE, MAE, RMSE]
    assert list(second.loss._weights) == [2.0, 2.0, 2.0]
