"""Every test starts from the same seed, on one thread, and makes and loads models faster."""

import gc
import inspect
import os
import pickle
import sys
from collections.abc import Iterator
from ctypes.util import find_library
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

#: The folder of another source tree of pytorch-forecasting, to test with instead of the installed.
PTF_SOURCE = "PTF_SOURCE"


def use_source_tree() -> None:
    """Let this process, and those that it starts, import pytorch-forecasting from PTF_SOURCE."""
    folder = os.environ.get(PTF_SOURCE)
    if not folder:
        return
    package = Path(folder).resolve() / "pytorch_forecasting"
    if not (package / "__init__.py").is_file():
        raise pytest.UsageError(f"{PTF_SOURCE} must be a checkout of pytorch-forecasting: {folder}")
    sys.path.insert(0, str(package.parent))
    paths = [str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


use_source_tree()  # before the conftest.py of a folder imports it
if find_library("cuda") is None:  # likewise; with a driver, torch is asked below
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_report_header() -> str | None:
    """Name the source tree under test."""
    folder = os.environ.get(PTF_SOURCE)
    return f"pytorch-forecasting: {folder}" if folder else None


def pytest_configure(config: pytest.Config) -> None:
    """Prepare a process that runs tests: not the one that only distributes them.

    That one imports nothing large, for the others start after it.
    """
    if config.getoption("numprocesses", None):
        return
    import matplotlib
    import torch

    if not torch.cuda.is_available():
        # Triton reads this when it is first imported, which torch.compile does, too.
        os.environ["TRITON_INTERPRET"] = "1"
    from hypothesis import settings
    from hypothesis.internal.conjecture import providers
    from lightning.pytorch.trainer.connectors import callback_connector

    matplotlib.use("Agg")  # no window, no display
    settings.register_profile("no clock", deadline=None)  # another process may slow a test down
    settings.load_profile("no clock")
    # Hypothesis also draws constants from the modules of this package that are loaded, so that a
    # test would depend on the tests before it in the same process.
    providers._get_local_constants = providers.Constants  # type: ignore[assignment]
    # Every Trainer searches all packages for callbacks, and tests make a thousand Trainers.
    callback_connector._load_external_callbacks = cache(callback_connector._load_external_callbacks)
    # Every seed is kept for absent devices, with the stack of the call, and each test sets it.
    for device in (torch.cuda, torch.xpu, torch.mtia):
        if not device.is_available():
            device.manual_seed_all = lambda seed: None  # type: ignore[assignment]
    torch.set_num_threads(1)  # same rounding everywhere, and small tensors are faster
    gc.disable()  # until all tests are collected


def pytest_collection_finish() -> None:
    """Let no garbage collection visit the modules and the tests, which all stay.

    Later ones are rarer than by default: they visit the datasets and models that tests share.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


#: Examples of docstrings that take more than ten seconds, or that a slow test runs, too.
SLOW_EXAMPLES = ("ExportMixin.to_exported_program", ".MLSTMForecaster")


@pytest.hookimpl(tryfirst=True)  # before pytest deselects tests by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark long examples of docstrings as slow."""
    for item in items:
        if isinstance(item, pytest.DoctestItem) and item.name.endswith(SLOW_EXAMPLES):
            item.add_marker(pytest.mark.slow)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that makes `make notebooks` write the outputs of the notebooks."""
    parser.addoption("--write-notebooks", action="store_true", help="write the notebooks' outputs")


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    """Close all figures after a test: matplotlib warns in whichever test opens one too many."""
    from matplotlib import pyplot

    yield
    pyplot.close("all")


@pytest.fixture(autouse=True)
def seed() -> None:
    """Seed Python, NumPy and torch."""
    from lightning import seed_everything

    seed_everything(0, verbose=False)


@pytest.fixture(autouse=True)
def forget_use_kernel() -> Iterator[None]:
    """Let the next test run what is used by default, whatever a test has called."""
    yield
    dispatch = sys.modules.get("pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.dispatch")
    if dispatch is not None:
        dispatch._enabled.update(dict.fromkeys(dispatch._enabled))


@pytest.fixture
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a form of the recurrence: see ``helpers.forms``."""
    from helpers.triton_kernels import TritonPlan, triton_chunkwise

    if not isinstance(request.param, TritonPlan):
        return request.param
    request.param.apply(monkeypatch)
    return triton_chunkwise


@pytest.fixture(scope="session")
def cache_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for all processes, so that the kernel is compiled once."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return tmp_path_factory.mktemp("cache")
    folder = tmp_path_factory.getbasetemp().parent / "cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def temporary_cache(cache_root: Path) -> Iterator[None]:
    """Build the C++ kernel in a temporary cache, not in the user's."""
    from helpers.cpp_kernel import clear_kernel_caches

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_root))
        clear_kernel_caches()
        yield


@pytest.fixture(autouse=True, scope="session")
def fast_yaml() -> Iterator[None]:
    """Let pytorch-forecasting check with libyaml, and once, whether arguments can be dumped.

    It dumps all arguments of a model, including the parameters of the dataset, which takes more
    than half of the time of its construction.
    """
    import yaml
    from pytorch_forecasting.models.base import _base_model

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
    from lightning.pytorch.utilities import model_helpers

    def stack() -> Iterator[SimpleNamespace]:
        frame = inspect.currentframe()
        while frame is not None:
            yield SimpleNamespace(filename=frame.f_code.co_filename)
            frame = frame.f_back

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_helpers, "inspect", SimpleNamespace(stack=stack))
        yield
