"""A faster constructor, since tests construct more than a thousand models."""

from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

import pytest
import yaml
from pytorch_forecasting.models.base import _base_model


@pytest.fixture(autouse=True, scope="session")
def fast_yaml() -> Iterator[None]:
    """Let pytorch-forecasting check with libyaml whether arguments can be dumped.

    It dumps all arguments of a model, including the parameters of the dataset, which takes more
    than half of the time of its construction.
    """
    dumper = getattr(yaml, "CDumper", yaml.Dumper)
    with pytest.MonkeyPatch.context() as patch:
        fast = SimpleNamespace(dump=partial(yaml.dump, Dumper=dumper))
        patch.setattr(_base_model, "yaml", fast)
        yield
