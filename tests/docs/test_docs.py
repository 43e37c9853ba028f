"""Every example of README and docs runs, every command exists, and every link has a target.

``make docs`` lets MkDocs check the links and anchors of the site.
"""

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: The examples of a page with this sentence run after those of the start page under this heading.
CONTINUES = re.compile(r"(?:go\s+on|continue)\s+from\s+the\s+\[first\s+model\]")
FIRST_MODEL = "## First model"
#: The first words of a block that is only compiled; the reason follows.
NOT_RUN = "# not run by the tests: "

_BLOCK = re.compile(r"^( *)```python[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path, after: str = "") -> list[Any]:
    """Compile the Python blocks of a page, or those after a heading; errors name its lines."""
    text = page.read_text(encoding="utf-8")
    compiled = []
    for match in _BLOCK.finditer(text, text.index(after)):
        indent, source = match.groups()
        source = re.sub(rf"^{indent}", "", source, flags=re.MULTILINE)
        line_offset = "\n" * text.count("\n", 0, match.start(2))
        code = compile(line_offset + source, str(page), "exec")
        if not source.startswith(NOT_RUN):
            compiled.append(code)
    return compiled


WITH_BLOCKS = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of")  # upstream's models
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning")  # torch's own use
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # only read upstream
@pytest.mark.filterwarnings("ignore:The default of config ..remember_data")  # sktime's wrappers
@pytest.mark.filterwarnings("ignore:Found elements in the index of X named '__total'")  # likewise
@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name_of)
@pytest.mark.filterwarnings("ignore:the .* interval of mLSTMTime holds")  # chance: few values
@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")  # a fit on all rows has none
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = ModuleType("page")  # so that classes of the page can be pickled, as in a script
    monkeypatch.setitem(sys.modules, module.__name__, module)
    blocks = blocks_of(page)
    if CONTINUES.search(page.read_text(encoding="utf-8")):
        blocks = blocks_of(ROOT / "docs/index.md", after=FIRST_MODEL) + blocks
    try:
        for block in blocks:
            exec(block, vars(module))
    finally:
        _clean_up()


def _clean_up() -> None:
    from matplotlib import pyplot

    from pytorch_forecasting_mlstm import unregister

    pyplot.close("all")
    unregister()


def test_most_pages_have_examples() -> None:
    assert len(WITH_BLOCKS) > 10  # else the regular expression misses them


def test_blocks_of_compiles_every_block(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```python\nraise KeyError\n```\n\n  ```python\n  x = 1 +\n  ```\n")
    with pytest.raises(SyntaxError, match="line 8"):
        blocks_of(page)
    page.write_text(f"```python\n{NOT_RUN}needs a GPU\nraise KeyError\n```\n\n```python\n1\n```\n")
    assert len(blocks_of(page)) == 1


def commands_of(page: Path) -> list[str]:
    """Find the commands of a page, and join those that continue on the next line."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    starts = r"(?:make |(?:\w+=\S+ )*python (?:-m pytorch_forecasting_mlstm|benchmarks/|tests/))"
    return re.findall(rf"(?:^ *|`)({starts}[^`\n#]*)", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in commands_of(page):
        if command.startswith("make "):
            words = [word for word in command.split()[1:] if re.fullmatch(r"[a-z-]+", word)]
            unknown = [word for word in words[:1] if word not in targets]
        else:
            unknown = [o for o in _OPTION.findall(command) if o not in options_of(command)]
        assert not unknown, f"{name_of(page)}: {command}"


def options_of(command: str) -> set[str]:
    """Read the options of a script from its source."""
    script = re.search(r"python (?:-m )?(\S+)", command)
    assert script is not None
    path = ROOT / script[1]
    source = path / "cli/arguments.py" if path.is_dir() else path
    return {"--help", *re.findall(r'"(--[a-z-]+)"', source.read_text(encoding="utf-8"))}


def test_commands_are_found() -> None:
    found = {command.split()[0] for page in PAGES for command in commands_of(page)}
    assert found >= {"make", "python"}
    assert "--horizon" in options_of("python -m pytorch_forecasting_mlstm")


def links_of(page: Path) -> list[str]:
    """Find the links of a page to files and headings in this repository."""
    text = page.read_text(encoding="utf-8")
    if page in NOTEBOOKS:
        cells = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
        text = "\n".join("".join(cell["source"]) for cell in cells)
    text = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))
    return [link for link in _LINK.findall(text) if not re.match(r"[a-z]+:", link)]


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that MkDocs and GitHub make from plain headings."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {
        re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())
        for heading in headings
    }


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=name_of)
def test_links_hold_in_the_repository(page: Path) -> None:
    for link in links_of(page):
        path, _, anchor = link.partition("#")
        base = ROOT if path.startswith("/") else page.parent
        target = (base / path.lstrip("/")) if path else page
        assert target.exists(), f"{name_of(page)} links to {link}"
        if anchor and target.suffix == ".md" and target.name != "api.md":
            assert anchor in anchors_of(target), f"{name_of(page)} links to {link}"
