"""MkDocs hooks: add notebooks and CONTRIBUTING.md, and render formulas without a network."""

import html
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_FORMULA = re.compile(r'<(?:span|div) class="arithmatex">(.*?)</(?:span|div)>', re.DOTALL)
_NOTEBOOK_TEXT = re.compile(r'<div class="[^"]*jp-RenderedMarkdown[^>]*>.*?</div>', re.DOTALL)
_NOTEBOOK_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the notebooks in the navigation."""
    assert config.nav is not None
    section = next(entry for entry in config.nav if "Notebooks" in entry)
    section["Notebooks"] = [f"notebooks/{path.name}" for path in _notebooks(config)]
    return config


@event_priority(100)  # before mkdocs-jupyter searches for notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the notebooks, which are not inside docs/."""
    for path in _notebooks(config):
        name, root = f"notebooks/{path.name}", str(path.parents[1])
        files.append(File(name, root, config.site_dir, config.use_directory_urls))
    return files


def _notebooks(config: MkDocsConfig) -> list[Path]:
    return sorted((Path(config.config_file_path).parent / "notebooks").glob("*.ipynb"))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show CONTRIBUTING.md, whose links start at the root of the repository."""
    if page.file.src_uri != "development/contributing.md":
        return markdown
    text = Path(config.config_file_path).with_name("CONTRIBUTING.md").read_text(encoding="utf-8")
    return text.replace("](docs/", "](../")


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Convert LaTeX to MathML, which needs no script, and fix the links of notebooks."""
    if page.file.src_uri.endswith(".ipynb"):
        return _NOTEBOOK_TEXT.sub(lambda match: _notebook_text(match[0]), content)
    return _FORMULA.sub(lambda match: _from_arithmatex(match[1]), content)


def _from_arithmatex(text: str) -> str:
    latex = html.unescape(text).strip()
    return _to_mathml(latex[2:-2], block=latex.startswith(r"\["))


def _notebook_text(text: str) -> str:
    """Render formulas, and make links to files link to pages."""
    text = re.sub(r'(href="[\w.-]+)\.ipynb\b', r"\1.html", text)
    text = re.sub(r'(href="\.\./)docs/([\w/.-]+)\.md\b', r"\1\2.html", text)
    return _NOTEBOOK_FORMULA.sub(
        lambda match: _to_mathml(html.unescape(match[1] or match[2]), block=bool(match[1])), text
    )


def _to_mathml(latex: str, *, block: bool) -> str:
    # MathML adds no space after a function
    formula = latex.strip().replace(r"\log ", r"\log\,")
    if block:
        return f'<div class="formula">{convert(formula, display="block")}</div>'
    return str(convert(formula))
