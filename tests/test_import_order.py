"""Imports inside the package run downwards only, without cycles."""

import runpy
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

DRAWING = Path(__file__).parents[1] / "docs" / "draw_imports.py"

PACKAGE = "pytorch_forecasting_mlstm"
OPS = f"{PACKAGE}.layers._recurrent._mlstm.ops"
#: A room may import from the rooms below it. Rooms in one set do not import each other.
LAYERS: dict[str, list[str | set[str]]] = {
    PACKAGE: [
        "__main__",
        {"cli", "sktime"},
        "forecaster",
        "_registry",
        "models",
        {"data", "layers", "resume"},
        {"_resume", "_safe_files"},
        {"_arguments", "_atomic_write", "_messages", "_upstream", "_v2_objects", "_validation"},
    ],
    f"{PACKAGE}.forecaster": [
        "forecaster",
        "saving",
        "state",
        "reading",
        "arguments",
        "evaluation",
        {"plots", "training"},
        "panel",
        "tables",
        "times",
        {"errors", "quantile_loss"},
    ],
    f"{PACKAGE}.sktime": [
        "mlstm_forecaster",
        "forecast",
        "observed",
        {"columns", "errors", "quantiles", "step_counter"},
    ],
    f"{PACKAGE}.models": ["mlstm_time", "base"],
    f"{PACKAGE}.models.base": [
        "base_model",
        "checks",
        {"export", "forecast", "plotting", "prediction"},
        "finite_outputs",
        {"checkpoint", "scales"},
        "losses",
        {"arguments", "errors", "inference", "link", "padding", "seeded_draws"},
    ],
    OPS: [
        {"autograd", "cell_autograd"},
        "cell_op",
        "dispatch",
        "triton",
        {"chunkwise", "cpp"},
        "protocol",
    ],
    f"{OPS}.triton": [
        "prepare",
        "self_test",
        "backend",
        "launch",
        {"device", "kernels", "options"},
    ],
    f"{OPS}.cpp": [
        "prepare",
        "self_test",
        "backend",
        {"cell", "preactivation_bindings", "step"},
        "step_bindings",
        "bindings",
        "library",
        {"cache", "dense", "packaged", "processor"},
        "compiler",  # a build runs packaged and compiler without the rest of the package
    ],
}
#: Rooms of one container that do not import each other, wherever they stand.
INDEPENDENT: dict[str, set[str]] = {OPS: {"chunkwise", "naive"}}
#: The model names its package container, which names the model; neither needs the other to load.
LAZY = (
    f"{PACKAGE}.models.mlstm_time._mlstm_time",
    f"{PACKAGE}.models.mlstm_time._mlstm_time_pkg",
)


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(PACKAGE, cache_dir=None)


@pytest.mark.parametrize("container", LAYERS)
def test_imports_run_downwards(graph: grimp.ImportGraph, container: str) -> None:
    layers = [
        grimp.Layer(*([layer] if isinstance(layer, str) else sorted(layer)))
        for layer in LAYERS[container]
    ]
    upwards = graph.find_illegal_dependencies_for_layers(layers, containers={container})
    assert not upwards, [(edge.importer, edge.imported) for edge in upwards]


@pytest.mark.parametrize("container", INDEPENDENT)
def test_independent_rooms_do_not_import_each_other(
    graph: grimp.ImportGraph, container: str
) -> None:
    layers = [grimp.Layer(*sorted(INDEPENDENT[container]))]
    assert not graph.find_illegal_dependencies_for_layers(layers, containers={container})


def test_imports_have_no_cycle(graph: grimp.ImportGraph) -> None:
    importers = {
        module: graph.find_modules_directly_imported_by(module) - {LAZY[1]}
        if module == LAZY[0]
        else graph.find_modules_directly_imported_by(module)
        for module in graph.modules
    }
    TopologicalSorter(importers).prepare()  # raises for a cycle, and names it


def test_upward_imports_are_detected(graph: grimp.ImportGraph) -> None:
    layers = [grimp.Layer("data"), grimp.Layer("models")]  # in reverse order
    assert graph.find_illegal_dependencies_for_layers(layers, containers={PACKAGE})


def test_diagram_of_the_imports_is_up_to_date() -> None:
    """If not, run ``make plots``."""
    drawing = runpy.run_path(str(DRAWING))
    diagram = drawing["DIAGRAM"].read_text(encoding="utf-8")
    assert drawing["describe"](drawing["room_imports"]()) in diagram
