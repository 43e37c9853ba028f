"""What a release consists of agrees, and its page on PyPI has links that work."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import pytorch_forecasting_mlstm

pytest.importorskip("hatchling", reason="the metadata are built by hatchling")
tomllib = pytest.importorskip("tomllib", reason="in Python from 3.11 on")

ROOT = Path(__file__).parents[1]
VERSION = pytorch_forecasting_mlstm.__version__
REPOSITORY = "https://example.org/owner/name"


needs_workflows = pytest.mark.skipif(
    not (ROOT / ".github").is_dir(), reason="the sources on PyPI have no workflows"
)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    import importlib.util

    spec = importlib.util.spec_from_file_location("hatch_metadata", ROOT / "hatch_metadata.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_version_changelog_and_citation_agree() -> None:
    heading = re.search(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)
    assert heading is not None
    citation = yaml.safe_load(read("CITATION.cff"))
    assert VERSION == heading[1] == citation["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)


def test_citation_is_that_of_the_package() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["authors"] == project["authors"]
    assert citation["license"] == project["license"]
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "type"} <= citation.keys()


@needs_workflows
def test_supported_pythons_are_classified_and_tested() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    lowest, highest = re.findall(r"3\.(\d+)", project["requires-python"])
    versions = [f"3.{minor}" for minor in range(int(lowest), int(highest))]
    prefix = "Programming Language :: Python :: 3."
    classified = [name[-4:] for name in project["classifiers"] if name.startswith(prefix)]
    assert classified == versions
    jobs = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]
    tested = jobs["test"]["strategy"]["matrix"]["python-version"]
    assert {versions[0], versions[-1]} <= set(tested)
    for page in ("README.md", "docs/index.md"):
        assert f"Python {versions[0]} to {versions[-1]}" in read(page)


def metadata(hook: ModuleType, monkeypatch: pytest.MonkeyPatch, repository: str) -> dict[str, Any]:
    monkeypatch.setenv("REPOSITORY_URL", repository)
    config = tomllib.loads(read("pyproject.toml"))["tool"]["hatch"]["metadata"]["hooks"]["custom"]
    built: dict[str, Any] = {}
    hook.ReadmeMetadataHook(str(ROOT), config).update(built)
    return built


def links(text: str) -> list[str]:
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", prose)


def test_links_of_the_readme_lead_to_the_files_of_the_version(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = metadata(hook, monkeypatch, f"{REPOSITORY}/")
    before, after = links(read("README.md")), links(built["readme"]["text"])
    assert len(before) == len(after) > 20
    for old, new in zip(before, after, strict=True):
        if old.startswith("https:"):
            assert new == old
            continue
        kind = "raw" if old.endswith(".png") else "blob"
        assert new == f"{REPOSITORY}/{kind}/v{VERSION}/{old}"
        assert (ROOT / old.partition("#")[0]).is_file()
    assert built["urls"]["Repository"] == REPOSITORY
    assert built["urls"]["Issues"] == f"{REPOSITORY}/issues"
    for name in ("Changelog", "Documentation"):
        path = built["urls"][name].removeprefix(f"{REPOSITORY}/blob/v{VERSION}/")
        assert (ROOT / path).is_file()


@pytest.mark.parametrize(
    ("repository", "site"),
    [
        ("https://github.com/Owner/name", "https://owner.github.io/name/"),
        ("https://github.com/Owner/name.git", None),
        ("https://github.com.example.org/owner/name", None),
        ("https://example.org/owner/name", None),
    ],
)
def test_documentation_leads_to_the_site_where_github_serves_it(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch, repository: str, site: str | None
) -> None:
    """Elsewhere, nothing tells the address of the site."""
    page = f"{site}{VERSION}/" if site else f"{repository}/blob/v{VERSION}/docs/index.md"
    assert metadata(hook, monkeypatch, repository)["urls"]["Documentation"] == page


def test_without_a_repository_no_link_is_broken(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = metadata(hook, monkeypatch, "")
    assert {link.partition(":")[0] for link in links(built["readme"]["text"])} == {"https"}
    assert "![" not in built["readme"]["text"]
    assert "[FAQ]" not in built["readme"]["text"]
    assert "an FAQ" in built["readme"]["text"]
    assert "urls" not in built


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](b.md)", "[a](U/blob/b.md)"),
        ("![a\nb](c/d.png)", "![a\nb](U/raw/c/d.png)"),
        ("[a](https://x.org) [b](#c) [d](mailto:e)", "[a](https://x.org) [b](#c) [d](mailto:e)"),
        ("```python\nx[0](y)\n```\n[a](b)", "```python\nx[0](y)\n```\n[a](U/blob/b)"),
    ],
)
def test_links_are_replaced_outside_of_code(hook: ModuleType, text: str, expected: str) -> None:
    assert hook.replace_links(text, "U/{}") == expected


@needs_workflows
def test_a_release_is_built_from_a_tag_of_its_version() -> None:
    """The workflow fails for another tag, before anything is uploaded."""
    release = workflow("release")
    assert release[True]["push"]["tags"] == ["v*"]  # YAML reads the key on as true
    commands = [step.get("run", "") for step in release["jobs"]["sources"]["steps"]]
    assert any("${GITHUB_REF_NAME#v}.tar.gz" in command for command in commands)
    assert {"tests", "wheels", "sources"} == set(release["jobs"]["publish"]["needs"])


def workflow(name: str) -> dict[Any, Any]:
    return yaml.safe_load(read(f".github/workflows/{name}.yml"))


@needs_workflows
def test_a_release_runs_the_tests_before_anything_is_uploaded() -> None:
    jobs = workflow("release")["jobs"]
    assert jobs["tests"] == {"uses": "./.github/workflows/ci.yml"}
    assert "workflow_call" in workflow("ci")[True]
    for job in jobs.values():
        uploads = any("pypi-publish" in step.get("uses", "") for step in job.get("steps", []))
        assert not uploads or "tests" in job["needs"]


@needs_workflows
def test_the_wheel_is_tried_elsewhere_than_in_the_checkout() -> None:
    """In the checkout, Python imports the sources; with an index, pip may take a release."""
    steps = workflow("ci")["jobs"]["pure"]["steps"]
    (install,) = (step for step in steps if "pip install dist/" in step.get("run", ""))
    assert install == {"run": "python -m pip install dist/*.whl", "shell": "bash"}
    (trial,) = (step for step in steps if "import backend" in step.get("run", ""))
    assert trial["working-directory"] == "${{ runner.temp }}"


@needs_workflows
def test_an_issue_can_be_opened_as_the_security_policy_says() -> None:
    blank = yaml.safe_load(read(".github/ISSUE_TEMPLATE/config.yml"))["blank_issues_enabled"]
    assert blank or "a blank issue" not in read("SECURITY.md")


@needs_workflows
@pytest.mark.parametrize("job", ["systems", "pure"])
def test_other_systems_choose_their_backend_by_default(job: str) -> None:
    settings = workflow("ci")["jobs"][job]
    assert "PYTORCH_FORECASTING_MLSTM_KERNEL" not in settings.get("env", {})
    for step in settings["steps"]:
        if "PYTORCH_FORECASTING_MLSTM_KERNEL" in step.get("env", {}):
            assert step["run"] == "python -m build"
