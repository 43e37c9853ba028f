"""The kernel is used by default where there is a library, and PyTorch everywhere else."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from helpers.cpp_kernel import clear_kernel_caches, draw, needs_compiler, with_gradients
from helpers.gated import gated_kernel
from helpers.layers import draw_input, make_layer
from helpers.tolerances import assert_close, assert_identical
from pytorch_forecasting_mlstm import backend, use_kernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cpp import (
    backend as cpp,
)
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cpp import (
    bindings,
    cache,
    library,
    self_test,
)

pytestmark = needs_compiler

VARIABLE = "PYTORCH_FORECASTING_MLSTM_KERNEL"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the calls of the kernel by a layer."""
    calls: list[str] = []
    original = cpp.cell.forward

    def spy(*args: Any) -> Any:
        calls.append("forward")
        return original(*args)

    monkeypatch.setattr(cpp, "cell", cpp.cell._replace(forward=spy))
    return calls


@pytest.fixture
def self_tests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace self-tests by successes, and record them."""
    tests: list[str] = []
    monkeypatch.setattr(self_test, "_test", lambda: tests.append("passed"))
    return tests


def run_layer() -> torch.Tensor:
    torch.manual_seed(0)
    return make_layer(hidden_size=16, num_heads=2)(draw_input(9))[0]


@pytest.mark.usefixtures("cached_library", "self_tests")
def test_library_in_the_cache_needs_no_compiler(
    calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    use_kernel()
    run_layer()
    assert calls


@pytest.mark.usefixtures("cached_library", "self_tests")
def test_compiled_library_is_used_without_a_call(calls: list[str]) -> None:
    actual = run_layer()
    assert calls == ["forward"]
    assert backend()[:2] == ("cpp", "the library that was compiled for this processor")
    assert str(backend()) == (
        "The recurrence is computed in C++ where possible, with the library that was compiled for "
        "this processor."
    )
    use_kernel(False)
    assert_close(actual, run_layer())
    assert calls == ["forward"]
    assert str(backend()) == (
        "The recurrence is computed in PyTorch: use_kernel(False) was called."
    )
    use_kernel()
    run_layer()
    assert calls == ["forward"] * 2
    assert backend().name == "cpp"


def test_nothing_is_compiled_by_default(
    empty_cache: Path, compilations: list[Path], calls: list[str]
) -> None:
    run_layer()
    assert str(backend()) == (
        "The recurrence is computed in PyTorch: this installation has no compiled library; call "
        "use_kernel() to compile one."
    )
    assert not calls and not compilations
    assert not empty_cache.exists()


@pytest.mark.usefixtures("cached_library", "self_tests")
@pytest.mark.parametrize(("setting", "name"), [("0", "pytorch"), ("1", "cpp"), ("", "cpp")])
def test_variable_sets_the_default(
    monkeypatch: pytest.MonkeyPatch, calls: list[str], setting: str, name: str
) -> None:
    monkeypatch.setenv(VARIABLE, setting)
    run_layer()
    assert backend().name == name
    assert calls == (["forward"] if name == "cpp" else [])
    if setting == "0":
        assert backend().reason == f"the environment variable {VARIABLE} is 0"
    use_kernel()  # an explicit call counts for more
    assert backend().name == "cpp"


def test_other_values_of_the_variable_raise(
    monkeypatch: pytest.MonkeyPatch, empty_cache: Path
) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    for run in (backend, run_layer):
        with pytest.raises(ValueError, match=f"{VARIABLE} must be 0 or 1, got 'off'; unset it"):
            run()


def test_damaged_library_in_the_cache_is_not_loaded(
    cached_library: Path, forbid_loading: None
) -> None:
    cached_library.write_bytes(cached_library.read_bytes()[:-1])
    assert backend().name == "pytorch"
    assert "is missing or incomplete; call use_kernel()" in backend().reason


def test_cache_that_others_may_write_to_is_not_used(
    cached_library: Path, forbid_loading: None
) -> None:
    cached_library.parent.chmod(0o777)
    assert backend().name == "pytorch"
    assert f"other users can write to {cached_library.parent}" in backend().reason


def test_newest_library_in_the_cache_is_used(
    cached_library: Path, self_tests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = cached_library.with_name(f"{library._cache_prefix()}0123.so")
    newer.write_bytes(cached_library.read_bytes())
    newer.chmod(0o600)
    os.utime(newer, (2**31, 2**31))
    (cached_library.parent / "recurrence-other-0123.so").write_bytes(b"of another processor")
    loaded: list[str] = []
    original = cache.load_functions

    def spy(path: Path, functions: Any) -> Any:
        loaded.append(path.name)
        return original(path, functions)

    monkeypatch.setattr(cache, "load_functions", spy)
    assert backend().name == "cpp"
    assert loaded == [newer.name]


def test_self_test_runs_once_on_a_machine(
    cached_library: Path, self_tests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def test_count() -> int:
        clear_kernel_caches()
        assert backend().name == "cpp"
        return len(self_tests)

    assert [test_count(), test_count()] == [1, 1]
    (note,) = cached_library.parent.glob("self-test-*")
    assert note.stat().st_mode & 0o777 == 0o600
    note.chmod(0o622)  # anyone can have written it
    assert test_count() == 2
    note.chmod(0o600)
    monkeypatch.setattr(self_test, "processor", lambda: "another processor")
    assert [test_count(), test_count()] == [3, 3]
    monkeypatch.setattr(torch, "__version__", "99")
    assert [test_count(), test_count()] == [4, 4]


def test_cache_that_cannot_be_written_means_a_test_in_each_process(
    cached_library: Path, self_tests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = library.existing_library()
    for location in ("/dev/null/nowhere", str(cached_library)):
        monkeypatch.setenv("XDG_CACHE_HOME", location)
        for _ in range(2):
            self_test.self_test.cache_clear()
            self_test.self_test(loaded.digest)
    assert len(self_tests) == 4


@pytest.mark.usefixtures("cached_library")
def test_failed_self_test_warns_once_and_falls_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = cpp.gated_fwd

    def zeros(*args: Any) -> Any:
        h, *rest = original(*args)
        return torch.zeros_like(h), *rest

    monkeypatch.setattr(cpp, "gated_fwd", zeros)
    with pytest.warns(RuntimeWarning, match="does not compute what PyTorch does") as warned:
        actual = run_layer()
    assert len(warned) == 1
    assert backend().name == "pytorch"
    assert "does not compute what PyTorch does" in str(backend())
    use_kernel(False)
    assert_identical(run_layer(), actual)


@pytest.mark.usefixtures("cached_library")
def test_library_that_fails_does_not_replace_the_one_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_kernel()
    in_use = bindings.load_kernel()

    def fail() -> None:
        raise self_test.SelfTestError("it differs")

    self_test.self_test.cache_clear()
    library.build_library.cache_clear()
    monkeypatch.setattr(self_test, "_test", fail)
    monkeypatch.setattr(self_test, "has_note", lambda name: False)
    with pytest.raises(RuntimeError, match="^use_kernel: it differs"):
        use_kernel()
    assert bindings.load_kernel() is in_use
    assert backend().name == "cpp"


@pytest.mark.usefixtures("cached_library")
@pytest.mark.parametrize(
    "setting",
    [torch.inference_mode, lambda: FlopCounterMode(display=False), lambda: torch.device("meta")],
    ids=["inference", "dispatch mode", "device"],
)
def test_first_use_ignores_the_modes_of_the_caller(setting: Callable[[], Any]) -> None:
    with setting():
        assert backend().name == "cpp"


@pytest.mark.usefixtures("cached_library")
def test_first_use_in_a_transform() -> None:
    names: list[str] = []

    def function(x: torch.Tensor) -> torch.Tensor:
        names.append(backend().name)
        return x

    torch.func.vmap(torch.func.grad(function))(torch.zeros(3))
    assert names == ["cpp"]


@pytest.mark.usefixtures("cached_library")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised inside torch's compiler
def test_first_use_while_torch_compiles(calls: list[str]) -> None:
    layer, x = make_layer(hidden_size=16, num_heads=2), draw_input(9)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    result = compiled(x)
    assert calls[-1:] == ["forward"], "the self-test, then the layer"
    use_kernel(False)
    calls.clear()
    assert_close(compiled(x), result)
    assert not calls


@pytest.mark.slow
@pytest.mark.usefixtures("cached_library")
@pytest.mark.parametrize("setting", ["", "0"], ids=["default", "off"])
def test_import_loads_nothing_and_spawned_processes_decide_anew(
    monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    program = """
import multiprocessing
from pytorch_forecasting_mlstm import backend, use_kernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.cpp import bindings
if __name__ == "__main__":
    assert not bindings._bound
    print(backend().name)
    use_kernel(False)
    for method in ("spawn", "fork"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(pool.apply(backend).name)
"""
    monkeypatch.setenv(VARIABLE, setting)
    default = "pytorch" if setting == "0" else "cpp"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == [default, default, "pytorch"]


def test_kernel_shares_the_threads_of_torch() -> None:
    """It calls the OpenMP runtime that torch has loaded, with the number of threads of torch."""
    use_kernel()
    assert bindings._parallel_region() is not None
    inputs = draw(700, 4, 16, torch.float32)
    expected = with_gradients(gated_kernel, inputs, None)
    requested: list[int] = []
    kernel, kind = bindings.load_kernel(), ctypes.CFUNCTYPE(None, ctypes.c_void_p)

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    def one_thread(function: int, data: int, threads: int, flags: int) -> None:
        requested.append(threads)
        kind(function)(data)

    torch.set_num_threads(3)
    try:
        for region in (ctypes.cast(one_thread, ctypes.c_void_p), None):
            kernel.set_parallel_region(region)
            assert_identical(with_gradients(gated_kernel, inputs, None), expected)
    finally:
        torch.set_num_threads(1)
        bindings.bind_kernel(kernel)
    # forward: gates and recurrence; backward: the same, and the gradients of the gates
    assert requested == [3] * 5
