"""The site works without a network, and links to the repository if its address is known."""

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
mkdocs_config = pytest.importorskip("mkdocs.config", reason="needs the extra 'docs'")


def load_site_config() -> Any:
    return mkdocs_config.load_config(str(ROOT / "mkdocs.yml"))


def test_site_scripts_are_local_files() -> None:
    config = load_site_config()
    config.plugins["material/offline"].on_config(config)  # links to a CDN unless a shim is there
    scripts = config.extra["polyfills"]
    assert scripts
    assert all((ROOT / "docs" / script).is_file() for script in scripts)


@pytest.mark.parametrize("url", ["https://example.org/owner/name", ""])
def test_site_repository_link_follows_environment(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPOSITORY_URL", url)
    assert (load_site_config().repo_url or "") == url
