"""Run notebooks in separate processes, and check their outputs."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

# a slash that is not part of a word, tag or web address, and at least one folder
_ABSOLUTE_PATH = re.compile(r"(?<![\w<>./:~-])(?:/[\w.-]+){2,}|\b[A-Z]:\\\w")


def run(path: Path, folder: Path, seconds: float) -> Any:
    """Run a notebook top to bottom in an empty folder, and return it with its outputs."""
    import nbformat
    from jupyter_client import AsyncKernelManager
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    end = time.monotonic() + seconds
    plots = "module://matplotlib_inline.backend_inline"
    # Sockets in a temporary folder, whose short name respects the limit of about 100 characters.
    # Ports would collide: two test processes could choose the same free port before they bind it.
    with tempfile.TemporaryDirectory() as sockets:
        client = NotebookClient(
            notebook,
            km=AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel"),
            timeout_func=lambda cell: max(1, int(end - time.monotonic())),  # the remaining seconds
            extra_arguments=["--log-level=ERROR"],  # else log lines appear in the first cell
            record_timing=False,
            resources={"metadata": {"path": str(folder)}},
        )
        client.execute(env={**os.environ, "MPLBACKEND": plots, "IPYTHONDIR": str(folder)})
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


def outputs(notebook: Any) -> Iterator[Any]:
    """Yield the outputs of all cells."""
    for cell in notebook["cells"]:
        yield from cell.get("outputs", [])


def count_plots(notebook: Any) -> int:
    """Count the plots."""
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def find_defects(notebook: Any) -> list[str]:
    """List what a reader should not find in a notebook."""
    defects = []
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    if [cell["execution_count"] for cell in code] != list(range(1, len(code) + 1)):
        defects.append("not run top to bottom")
    first = notebook["cells"][0]
    if first["cell_type"] != "markdown" or not "".join(first["source"]).startswith("# "):
        defects.append("does not begin with a heading")
    if not count_plots(notebook):
        defects.append("no plot")
    if notebook["metadata"] != METADATA or any(cell["metadata"] for cell in notebook["cells"]):
        defects.append("metadata")
    for output in outputs(notebook):
        if output["output_type"] == "error":
            defects.append(f"error: {output['ename']}")
        if output.get("name") == "stderr":
            defects.append(f"stderr: {''.join(output['text'])[:200]}")
        texts = [output.get("text", ""), *output.get("data", {}).values()]
        kinds = ["text/plain", *output.get("data", {})]
        for kind, text in zip(kinds, texts, strict=True):
            path = None if kind.startswith("image/") else _ABSOLUTE_PATH.search("".join(text))
            if path:
                defects.append(f"absolute path: {path[0]}")
    return defects
