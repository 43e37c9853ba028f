"""Run notebooks, each in a process of its own, and look at what they show."""

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

# a slash that no word, tag or web address leads to, and at least one folder
_ABSOLUTE_PATH = re.compile(r"(?<![\w<>./:~-])(?:/[\w.-]+){2,}|\b[A-Z]:\\\w")


def run(path: Path, folder: Path, seconds: float) -> Any:
    """Run a notebook top to bottom in an empty folder, and return it with what it shows."""
    import nbformat
    from jupyter_client import AsyncKernelManager
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    end = time.monotonic() + seconds
    pictures = "module://matplotlib_inline.backend_inline"
    # Sockets in a folder of the run's own (a short name: the system takes about 100 characters).
    # Ports are looked for first and taken later: two test processes would find the same ones.
    with tempfile.TemporaryDirectory() as sockets:
        client = NotebookClient(
            notebook,
            km=AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel"),
            timeout_func=lambda cell: max(1, int(end - time.monotonic())),  # of what is left
            extra_arguments=["--log-level=ERROR"],  # else the kernel's notes land in the first cell
            record_timing=False,
            resources={"metadata": {"path": str(folder)}},
        )
        client.execute(env={**os.environ, "MPLBACKEND": pictures, "IPYTHONDIR": str(folder)})
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


def outputs(notebook: Any) -> Iterator[Any]:
    """Yield all that the cells show."""
    for cell in notebook["cells"]:
        yield from cell.get("outputs", [])


def pictures(notebook: Any) -> int:
    """Count the pictures."""
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def complaints(notebook: Any) -> list[str]:
    """Say what a reader should not find in a notebook."""
    found = []
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    if [cell["execution_count"] for cell in code] != list(range(1, len(code) + 1)):
        found.append("not run top to bottom")
    first = notebook["cells"][0]
    if first["cell_type"] != "markdown" or not "".join(first["source"]).startswith("# "):
        found.append("begins with no heading")
    if not pictures(notebook):
        found.append("no picture")
    if notebook["metadata"] != METADATA or any(cell["metadata"] for cell in notebook["cells"]):
        found.append("metadata")
    for output in outputs(notebook):
        if output["output_type"] == "error":
            found.append(f"error: {output['ename']}")
        if output.get("name") == "stderr":
            found.append(f"stderr: {''.join(output['text'])[:200]}")
        texts = [output.get("text", ""), *output.get("data", {}).values()]
        kinds = ["text/plain", *output.get("data", {})]
        for kind, text in zip(kinds, texts, strict=True):
            path = None if kind.startswith("image/") else _ABSOLUTE_PATH.search("".join(text))
            if path:
                found.append(f"absolute path: {path[0]}")
    return found
