"""The notebooks run top to bottom, and their committed outputs are fit for a reader."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.notebooks import NOTEBOOKS, count_plots, find_defects, run

SECONDS = 300  # they take up to two minutes on one slow core

parametrize_notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_notebooks_are_numbered() -> None:
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{n:02d}-" for n in range(1, 7)]
    titles = ["".join(read(path)["cells"][0]["source"]) for path in NOTEBOOKS]
    assert all(title.startswith(f"# {n}. ") for n, title in enumerate(titles, start=1))


@parametrize_notebooks
def test_committed_notebook_has_no_defects(path: Path) -> None:
    assert find_defects(read(path)) == []


def add_output(**output: Any) -> Callable[[Any], None]:
    return lambda notebook: notebook["cells"][-1].setdefault("outputs", []).append(output)


def clear_execution_count(notebook: Any) -> None:
    next(c for c in notebook["cells"] if c["cell_type"] == "code")["execution_count"] = None


def remove_outputs(notebook: Any) -> None:
    for cell in notebook["cells"]:
        cell.pop("outputs", None)


@pytest.mark.parametrize(
    ("corrupt", "defect"),
    [
        (clear_execution_count, "not run"),
        (remove_outputs, "no plot"),
        (lambda notebook: notebook["cells"].pop(0), "heading"),
        (lambda notebook: notebook["metadata"].update(user="me"), "metadata"),
        (add_output(output_type="error", ename="KeyError", evalue="'x'"), "KeyError"),
        (add_output(output_type="stream", name="stderr", text=["a warning"]), "a warning"),
        (
            add_output(output_type="stream", name="stdout", text=["in /home/me/x.py"]),
            "/home/me/x.py",
        ),
        (add_output(output_type="display_data", data={"text/html": '"/opt/a/b"'}), "/opt/a/b"),
    ],
)
def test_find_defects_of_a_corrupted_notebook(corrupt: Callable[[Any], None], defect: str) -> None:
    notebook = copy.deepcopy(read(NOTEBOOKS[0]))
    corrupt(notebook)
    assert any(defect in message for message in find_defects(notebook))


@pytest.mark.notebooks
@parametrize_notebooks
def test_notebook_runs_top_to_bottom(
    path: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """With --write-notebooks, also write its outputs."""
    import nbformat

    notebook = run(path, tmp_path, SECONDS)
    assert count_plots(notebook) == count_plots(read(path)) or request.config.option.write_notebooks
    if request.config.option.write_notebooks:
        nbformat.write(notebook, path)
