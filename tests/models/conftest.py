"""Faster construction and loading, since tests construct and load more than a thousand models."""

import inspect
import pickle
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from lightning.pytorch.utilities import model_helpers
from pytorch_forecasting.models.base import _base_model


@pytest.fixture(autouse=True, scope="session")
def fast_yaml() -> Iterator[None]:
    """Let pytorch-forecasting check with libyaml, and once, whether arguments can be dumped.

    It dumps all arguments of a model, including the parameters of the dataset, which takes more
    than half of the time of its construction.
    """
    dumper = getattr(yaml, "CDumper", yaml.Dumper)
    dumped: set[bytes] = set()

    def dump(value: Any) -> None:
        if isinstance(value, int | float | str | None):  # which can be dumped
            return
        try:
            key = pickle.dumps(value)
        except Exception:  # of a local class, or of a test that cannot be pickled on purpose
            key = b""
        if key not in dumped:
            yaml.dump(value, Dumper=dumper)
            dumped.add(key)
        dumped.discard(b"")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_base_model, "yaml", SimpleNamespace(dump=dump))
        yield


@pytest.fixture(autouse=True, scope="session")
def fast_stack() -> Iterator[None]:
    """Let Lightning look for torch.jit in the names of the calling files without reading them.

    ``load_from_checkpoint`` searches all imported modules for the source of every frame.
    """
    with pytest.MonkeyPatch.context() as patch:
        fast = SimpleNamespace(stack=partial(inspect.stack, 0))
        patch.setattr(model_helpers, "inspect", fast)
        yield
