"""The readme and the links of the package's metadata, which PyPI shows.

Links of README.md are relative to the repository, and PyPI knows no repository. While the variable
REPOSITORY_URL is set, as in continuous integration, they become links to the files of this version
there. Without it, their text stays, and pictures are left out.

"Documentation" leads to the site of the version, which a release adds to the branch gh-pages, if
the repository is on GitHub: the rule of GitHub Pages gives its address. Elsewhere it leads to a
file.
"""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_VARIABLE = "REPOSITORY_URL"
#: [text](target) and ![text](target), where a text may go on over the end of a line.
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_ABSOLUTE = re.compile(r"[a-z][a-z+.-]*:|#")
_GITHUB = re.compile(r"https://github\.com/([\w-]+)/((?!.*\.git$)[\w.-]+)")
_PAGES = {"Changelog": "CHANGELOG.md", "Documentation": "docs/index.md"}


class ReadmeMetadataHook(MetadataHookInterface):
    """Set the readme and the addresses of a distribution."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Replace the links of README.md, and add the addresses of the repository."""
        repository = os.environ.get(_VARIABLE, "").strip().rstrip("/")
        version = re.search(
            r'^__version__ = "(.+)"$',
            Path(self.root, self.config["version-file"]).read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        assert version is not None
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        files = f"{repository}/{{}}/v{version[1]}" if repository else ""
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": replace_links(text, files),
        }
        if repository:
            pages = {name: f"{files.format('blob')}/{page}" for name, page in _PAGES.items()}
            if github := _GITHUB.fullmatch(repository):
                site = f"https://{github[1].lower()}.github.io/{github[2]}"
                pages["Documentation"] = f"{site}/{version[1]}/"
            metadata["urls"] = {"Repository": repository, "Issues": f"{repository}/issues", **pages}


def replace_links(text: str, files: str) -> str:
    """Make the relative links of a page absolute.

    Parameters
    ----------
    text : str
        The page, in Markdown.
    files : str
        Address of the files of a version, with {} for the kind of view: "blob", or "raw" for
        pictures. Empty if there is none: then links become plain text.
    """

    def replace(match: re.Match[str]) -> str:
        mark, label, target = match.groups()
        if _ABSOLUTE.match(target):
            return match[0]
        if not files:
            return "" if mark else label
        return f"{mark}[{label}]({files.format('raw' if mark else 'blob')}/{target})"

    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if n % 2 else _LINK.sub(replace, part) for n, part in enumerate(parts))
