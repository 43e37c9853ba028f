"""Every set of arguments of the conformance suite, each with another loss; the rest is slow."""

import re

import pytest

_PRODUCT = re.compile(r"test_conformance\.py::.*\[.*base_params-(\d+)-(\w+)\]")


@pytest.hookimpl(tryfirst=True)  # before pytest deselects tests by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow all but the first loss with the first set of arguments, and so on."""
    products = [(item, match) for item in items if (match := _PRODUCT.search(item.nodeid))]
    losses = list(dict.fromkeys(match[2] for _, match in products))
    for item, match in products:
        if int(match[1]) != losses.index(match[2]):
            item.add_marker(pytest.mark.slow)
