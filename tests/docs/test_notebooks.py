"""The notebooks run top to bottom, and what is committed of them is what a reader should see."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.notebooks import NOTEBOOKS, complaints, pictures, run

SECONDS = 300  # two minutes on one core of the machine they were written on

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_they_are_numbered() -> None:
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{n:02d}-" for n in range(1, 6)]
    titles = ["".join(read(path)["cells"][0]["source"]) for path in NOTEBOOKS]
    assert all(title.startswith(f"# {n}. ") for n, title in enumerate(titles, start=1))


@every_notebook
def test_what_is_committed_is_fit_to_be_read(path: Path) -> None:
    assert complaints(read(path)) == []


def show(**output: Any) -> Callable[[Any], None]:
    return lambda notebook: notebook["cells"][-1].setdefault("outputs", []).append(output)


def forget_a_cell(notebook: Any) -> None:
    next(c for c in notebook["cells"] if c["cell_type"] == "code")["execution_count"] = None


def lose_the_pictures(notebook: Any) -> None:
    for cell in notebook["cells"]:
        cell.pop("outputs", None)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (forget_a_cell, "not run"),
        (lose_the_pictures, "no picture"),
        (lambda notebook: notebook["cells"].pop(0), "heading"),
        (lambda notebook: notebook["metadata"].update(user="me"), "metadata"),
        (show(output_type="error", ename="KeyError", evalue="'x'"), "KeyError"),
        (show(output_type="stream", name="stderr", text=["a warning"]), "a warning"),
        (show(output_type="stream", name="stdout", text=["in /home/me/x.py"]), "/home/me/x.py"),
        (show(output_type="display_data", data={"text/html": '"/opt/a/b"'}), "/opt/a/b"),
    ],
)
def test_what_spoils_a_notebook_is_seen(spoil: Callable[[Any], None], complaint: str) -> None:
    notebook = copy.deepcopy(read(NOTEBOOKS[0]))
    spoil(notebook)
    assert any(complaint in found for found in complaints(notebook))


@pytest.mark.notebooks
@every_notebook
def test_it_runs_top_to_bottom(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """With --write-notebooks what it shows is kept."""
    import nbformat

    notebook = run(path, tmp_path, SECONDS)
    assert pictures(notebook) == pictures(read(path)) or request.config.option.write_notebooks
    if request.config.option.write_notebooks:
        nbformat.write(notebook, path)
