"""The Triton kernels are used by default on CUDA devices that pass the self-test."""

from __future__ import annotations

import ast
import importlib.util
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from helpers.triton_kernels import DEVICE, needs_triton, triton_selected
from pytorch_forecasting_mlstm import backend, use_kernel
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops import dispatch
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops import triton as package
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.triton import backend as triton
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.triton import (
    device,
    options,
    prepare,
    self_test,
)
from pytorch_forecasting_mlstm.layers._recurrent._mlstm.ops.types import Inputs

VARIABLE = "PYTORCH_FORECASTING_MLSTM_KERNEL"
LAPTOP = device.CudaDevice(0, "A laptop's GPU", "a laptop's GPU, torch 1")


def clear_caches() -> None:
    dispatch._read_variable.cache_clear()
    dispatch._lasting.cache_clear()
    self_test._sources_digest.cache_clear()


@pytest.fixture(autouse=True)
def fresh_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Let each test choose anew, with an empty cache, and without the C++ kernel."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(dispatch, "KERNELS", dispatch.KERNELS[1:])
    monkeypatch.setattr(dispatch, "_prepared", {})
    clear_caches()
    yield
    clear_caches()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> list[device.CudaDevice]:
    """Pretend that torch finds CUDA devices, and return them."""
    devices = [LAPTOP]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(prepare, "find_devices", lambda: devices)
    return devices


@pytest.fixture
def self_tests(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Replace self-tests by successes, and record their devices."""
    tests: list[torch.device] = []
    monkeypatch.setattr(self_test, "_test", tests.append)
    return tests


# --- what backend() says


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_nothing_is_said_of_it() -> None:
    assert backend().cuda is None
    assert "CUDA" not in str(backend())


@needs_triton
def test_kernels_are_used_by_default(cuda: Any, self_tests: list[torch.device]) -> None:
    info = backend().cuda
    assert info is not None and info.name == "triton"
    assert info.reason.endswith("on A laptop's GPU")
    assert f"On CUDA devices, it is computed in Triton where possible, with {info.reason}." in str(
        backend()
    )
    use_kernel(False)
    assert backend().cuda == ("pytorch", "use_kernel(False) was called", None)
    use_kernel()
    assert backend().cuda == info
    assert len(self_tests) == 1


def test_variable_turns_the_kernels_off(
    cuda: Any, self_tests: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    info = backend().cuda
    assert info is not None and info.name == "pytorch"
    assert info.reason == f"the environment variable {VARIABLE} is 0"
    assert not self_tests


def properties(capability: tuple[int, int], name: str = "A GPU") -> Any:
    return SimpleNamespace(name=name, major=capability[0], minor=capability[1])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cuda": False}, "torch finds no CUDA device"),
        ({"forked": True}, "this process was forked from one that uses CUDA"),
        ({"hip": "6.0"}, "the kernels have not been tested with ROCm"),
        ({"spec": None}, "Triton is not installed; pip install triton"),
        ({"version": "3.4.0"}, "Triton 3.5 is needed, 3.4.0 is installed"),
        ({"capability": (7, 5)}, "the kernels need compute capability 8.0, A GPU has 7.5"),
        ({"capability": (9, 0)}, None),
        ({"version": "3.10.1+git"}, None),
    ],
    ids=str,
)
def test_reasons_for_pytorch(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], reason: str | None
) -> None:
    """use_kernel() raises no error for these: PyTorch computes the same."""
    case = {"cuda": True, "hip": None, "spec": "found", "version": "3.7.0", "capability": (8, 6)}
    case |= {"forked": False} | changes
    module = SimpleNamespace(__version__=case["version"])
    if case["spec"]:
        monkeypatch.setitem(sys.modules, "triton", module)
    else:
        monkeypatch.delitem(sys.modules, "triton", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: case["spec"])
    monkeypatch.setattr(torch.version, "hip", case["hip"])
    for name, value in (
        ("is_available", case["cuda"]),
        ("_is_in_bad_fork", case["forked"]),
        ("device_count", 2),
        ("current_device", 0),
        ("get_device_properties", properties(case["capability"])),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda *args, value=value: value)
    if reason is None:
        assert [found.number for found in device.find_devices()] == [0]  # two of one model
        return
    with pytest.raises(device.TritonUnavailableError) as raised:
        device.find_devices()
    assert str(raised.value) == reason
    info = dispatch._existing("cuda")
    assert (info.name, info.reason) == ("pytorch", reason)
    use_kernel()


@needs_triton
def test_each_model_is_tested_and_old_ones_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of a distributed training tests its own device, not the first one."""
    models = [("Old", (7, 0)), ("New", (9, 0)), ("Other", (8, 6)), ("New", (9, 0))]
    for name, function in (
        ("is_available", lambda: True),
        ("device_count", lambda: len(models)),
        ("current_device", lambda: 3),
        ("get_device_properties", lambda j: properties(models[j][1], models[j][0])),
    ):
        monkeypatch.setattr(torch.cuda, name, function)
    assert [(x.number, x.name) for x in device.find_devices()] == [(3, "New"), (2, "Other")]


@pytest.mark.skipif(torch.cuda.is_available(), reason="tensors on devices that do not exist")
def test_tensors_on_an_old_device_are_computed_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities = [(7, 5), (8, 0)]
    device.is_new_enough.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda j: capabilities[j])
    with FakeTensorMode():
        x = [torch.empty(2, 9, 70, device=f"cuda:{j}") for j in range(2)]
        monkeypatch.setattr(triton, "Tensor", type(x[0]))
        assert [triton.supports_gated(part, 16) for part in x] == [False, True]
        assert [triton.supports_chunkwise(Inputs(*[part] * 5), None) for part in x] == [False, True]
    device.is_new_enough.cache_clear()


# --- failures that must not last


def fail_on_the_cpu(build: bool) -> str:
    raise RuntimeError("found no compiler")


def test_error_of_the_cpu_does_not_keep_the_kernels_off(
    cuda: Any, self_tests: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    on_cpu = dispatch.Kernel(triton, fail_on_the_cpu)
    monkeypatch.setattr(dispatch, "KERNELS", (on_cpu, *dispatch.KERNELS))
    use_kernel(False)
    with pytest.raises(RuntimeError, match="^use_kernel: found no compiler"):
        use_kernel()
    info = backend()
    assert info[:2] == ("pytorch", "use_kernel(False) was called")
    assert info.cuda is not None and info.cuda.name == "triton"
    assert [dispatch._is_enabled(kernel, torch.device("cuda")) for kernel in dispatch.KERNELS] == [
        False,
        True,
    ]


def test_success_of_use_kernel_replaces_a_failure(
    cuda: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")

    def fail(device: torch.device) -> None:
        raise self_test.TritonSelfTestError("the kernels differ")

    monkeypatch.setattr(self_test, "_test", fail)
    with pytest.warns(RuntimeWarning, match="the kernels differ") as warned:
        assert backend().cuda is not None and backend().cuda.name == "pytorch"
    assert warned[0].filename == __file__
    monkeypatch.setattr(self_test, "_test", lambda device: None)
    use_kernel()
    assert backend().cuda is not None and backend().cuda.name == "triton"
    assert dispatch._is_enabled(dispatch.KERNELS[-1], torch.device("cuda"))


def test_lack_of_memory_is_forgotten(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")

    def fail(device: torch.device) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has")

    monkeypatch.setattr(self_test, "_test", fail)
    info = backend().cuda
    assert info is not None
    assert info[:2] == ("pytorch", "the self-test ran out of memory: CUDA out of memory")
    monkeypatch.setattr(self_test, "_test", lambda device: None)
    info = backend().cuda
    assert info is not None and info.name == "triton"


def test_nothing_is_tested_while_a_graph_is_captured(
    cuda: Any, self_tests: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)

    def name_while(capturing: bool) -> str:
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
        info = backend().cuda
        assert info is not None
        return info.name

    assert name_while(True) == "pytorch"
    use_kernel()
    assert name_while(True) == "pytorch" and not self_tests
    assert name_while(False) == "triton" and len(self_tests) == 1
    assert name_while(True) == "triton"


# --- the self-test


@needs_triton
def test_kernels_for_another_precision_are_tested_before_their_use(
    cuda: Any, self_tests: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Allowing TF32 compiles other kernels."""
    for call in (backend, use_kernel):
        call()
        assert len(self_tests) == 1
    monkeypatch.setattr(options, "_allows_tf32", lambda: True)
    assert dispatch._is_enabled(dispatch.KERNELS[-1], torch.device("cuda"))
    assert len(self_tests) == 2
    monkeypatch.setattr(options, "_allows_tf32", lambda: False)
    assert dispatch._is_enabled(dispatch.KERNELS[-1], torch.device("cuda"))
    assert len(self_tests) == 2


@needs_triton
def test_self_test_runs_once_for_each_device(
    cuda: list[device.CudaDevice], self_tests: list[torch.device], tmp_path: Path
) -> None:
    def test_count() -> int:
        clear_caches()
        info = backend().cuda
        assert info is not None and info.name == "triton"
        return len(self_tests)

    assert [test_count(), test_count()] == [1, 1]
    (note,) = (tmp_path / "pytorch_forecasting_mlstm").glob("triton-self-test-*")
    note.chmod(0o622)  # anyone can have written it
    assert test_count() == 2
    note.chmod(0o600)
    cuda.append(device.CudaDevice(1, "Another GPU", "another GPU, torch 1"))
    assert [test_count(), test_count()] == [3, 3]
    assert self_tests[-1] == torch.device("cuda", 1)
    cuda[0] = LAPTOP._replace(key="a laptop's GPU, torch 2")
    assert test_count() == 4


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (self_test.TritonSelfTestError("the kernels differ"), "the kernels differ"),
        (
            OSError("no compiler.\nfound"),
            "cannot be compiled or run on A laptop's GPU, and are not used: OSError: no compiler",
        ),
    ],
    ids=["differ", "fail"],
)
def test_failed_self_test_warns_once_and_falls_back(
    cuda: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail(device: torch.device) -> None:
        raise error

    monkeypatch.setattr(self_test, "_test", fail)
    with pytest.warns(RuntimeWarning, match=message) as warned:
        infos = [backend().cuda for _ in range(2)]
    assert len(warned) == 1
    assert all(info is not None and info.name == "pytorch" for info in infos)
    assert message in infos[0].reason
    with pytest.raises(RuntimeError, match=f"^use_kernel: .*{message}"):
        use_kernel()


@pytest.mark.parametrize("B", [64, 1024])
def test_chunks_of_saved_states_do_not_depend_on_the_precision(
    monkeypatch: pytest.MonkeyPatch, B: int
) -> None:
    """It may change between the passes, and traces know nothing of it."""
    v = torch.empty(B, 4, 512, 16, device="meta")
    steps = set()
    for allowed in (False, True):
        monkeypatch.setattr(options, "_allows_tf32", lambda allowed=allowed: allowed)
        steps.add(options.chunk_options(v, 16, 64)["BT"])
    (chosen,) = steps
    assert options.count_chunks(4 * B, 500, 16, 16, 64) == -(-500 // chosen)


class Launch(NamedTuple):
    """What is compiled for a comparison of the self-test."""

    is_sequential: bool
    steps: int
    side: int
    has_loops: bool
    kernel: str
    dtype: torch.dtype = torch.float32


def test_self_test_compares_each_kind_of_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences, many sequences and chunks, small and large blocks, one and several, in 16 bits."""
    launches: dict[Launch, float] = {}
    norms: list[float] = []

    def record(kernel: Any, naive: Any, inputs: Any, tolerance: float) -> None:
        name = kernel.func.__name__
        if name == "_norm_kernel":
            norms.append(tolerance)
            return
        is_gated = name != "_chunkwise_kernel"
        dtype = torch.float32 if is_gated else kernel.args[1]
        K, V = (
            (inputs[1].shape[-1],) * 2 if is_gated else (inputs[0].shape[-1], inputs[2].shape[-1])
        )
        B, NH = inputs[-1].shape
        chosen = options.chunk_options(torch.empty(B, NH, 0, V, dtype=dtype), K, 32)
        has_loops = options.count_blocks(K, chosen["BK"]) > 1
        is_sequential = options.is_sequential(B * NH, K, V)
        T = inputs[0].shape[1 if is_gated else 2]
        assert T > chosen["BT"] and T % chosen["BT"]  # a chunk or two, and a part of one
        key = Launch(is_sequential, chosen["BT"], chosen["BK"], has_loops, name, dtype)
        launches[key] = tolerance

    monkeypatch.setattr(self_test, "_compare", record)
    self_test._test(DEVICE)
    assert {*launches} == {
        *(
            Launch(*launch, name)
            for name in ("_gated_kernel", "_training_kernel")
            for launch in (
                (True, 32, 16, False),
                (True, 16, 16, False),
                (False, 32, 16, False),
                (False, 32, 64, False),
            )
        ),
        Launch(False, 32, 32, False, "_chunkwise_kernel"),
        Launch(False, 32, 64, True, "_chunkwise_kernel"),
        Launch(False, 32, 64, True, "_chunkwise_kernel", torch.bfloat16),
    }
    assert len(norms) == 1 and norms[0] < 1e-3
    strict = [tolerance for launch, tolerance in launches.items() if launch.dtype == torch.float32]
    assert max(strict) < 1e-3  # one product of TF32 has a larger error
    monkeypatch.setattr(options, "_allows_tf32", lambda: True)
    launches.clear()
    self_test._test(DEVICE)
    assert min(launches.values()) > 1e-3


def test_self_test_of_a_training_has_no_gradients_of_the_state_and_no_padding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """These decide which branches of the kernels are compiled."""
    launched = []

    def forward(parts: Any, first: Any, padding: Any, L: int, plan: bool) -> Any:
        return parts[0][..., :32], first, ()

    def backward(parts: Any, first: Any, padding: Any, *rest: Any) -> Any:
        grads = rest[3]
        launched.append((padding, grads.c, grads.n))
        return list(parts), first

    monkeypatch.setattr(triton, "gated_fwd", forward)
    monkeypatch.setattr(triton, "gated_bwd", backward)
    p, state = torch.ones(2, 7, 132), (torch.ones(2, 2, 16, 16), torch.ones(2, 2, 16))
    for kernel in (self_test._training_kernel, self_test._gated_kernel):
        kernel(DEVICE, p, *state, torch.ones(2, 2))
    training, other = launched
    assert training == (None, None, None)
    assert other[0][..., 0].tolist() == [[True, False, False, True, False, False, True]] * 2
    assert other[1] is not None and other[2] is not None


def test_note_depends_on_precision_machine_and_shared_modules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = [self_test._key(LAPTOP)]
    with monkeypatch.context() as patch:
        patch.setattr(options, "_allows_tf32", lambda: True)
        keys.append(self_test._key(LAPTOP))
    with monkeypatch.context() as patch:
        patch.setattr(platform, "node", lambda: "another machine")
        keys.append(self_test._key(LAPTOP))
    read = Path.read_bytes
    for name in ("agreement", "naive", "scale_gradients", "preactivations"):

        def changed(path: Path, name: str = name) -> bytes:
            return read(path) + (b"#" if path.stem == name else b"")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", changed)
            self_test._sources_digest.cache_clear()
            keys.append(self_test._key(LAPTOP))
    assert len({*keys}) == len(keys) == 7


@needs_triton
@pytest.mark.slow
def test_self_test_passes() -> None:
    with triton_selected():
        self_test._test(DEVICE)


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("name", ["chunkwise_fwd", "chunkwise_bwd", "gated_fwd", "gated_bwd"])
def test_self_test_finds_a_wrong_result(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    original = getattr(triton, name)

    def zeros(*args: Any) -> Any:
        first, *rest = original(*args)
        wrong = [torch.zeros_like(x) for x in first] if isinstance(first, list) else 0 * first
        return wrong, *rest

    monkeypatch.setattr(triton, name, zeros)
    with (
        triton_selected(),
        pytest.raises(self_test.TritonSelfTestError, match="do not compute what PyTorch does"),
    ):
        self_test._test(DEVICE)


# --- what is computed with the kernels


def make_inputs(K: int = 16, V: int = 16, dtype: torch.dtype = torch.float32) -> Inputs:
    """Return fake inputs on a CUDA device that need not exist."""
    q, k = (torch.empty(2, 1, 9, K, dtype=dtype, device="cuda") for _ in range(2))
    gates = (torch.empty(2, 1, 9, device="cuda") for _ in range(2))
    return Inputs(q, k, torch.empty(2, 1, 9, V, dtype=dtype, device="cuda"), *gates)


@pytest.mark.parametrize(
    ("case", "is_supported"),
    [
        ({}, True),
        ({"K": 8, "V": 256}, True),
        ({"K": 7}, False),
        ({"V": 257}, False),
        ({"dtype": torch.bfloat16}, True),
        ({"dtype": torch.float64}, False),
    ],
    ids=str,
)
def test_supported_inputs(
    monkeypatch: pytest.MonkeyPatch, case: dict[str, Any], is_supported: bool
) -> None:
    with FakeTensorMode():
        inputs = make_inputs(**case)
        # A fake tensor has no data to launch a kernel on.
        assert not triton.supports_chunkwise(inputs, None)
        monkeypatch.setattr(triton, "Tensor", type(inputs.q))
        monkeypatch.setattr(triton, "is_new_enough", lambda number: True)
        assert triton.supports_chunkwise(inputs, None) == is_supported
        assert triton.supports_chunkwise(inputs, 40) == is_supported
        mixed = inputs._replace(v=inputs.v.to(torch.float16))
        assert not triton.supports_chunkwise(mixed, None)


@pytest.mark.parametrize("kind", ["Tensor", "Parameter"])
def test_supported_preactivations(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    with FakeTensorMode():
        p = torch.empty(2, 9, 70, device="cuda")
        assert not triton.supports_gated(p, 16)
        monkeypatch.setattr(triton, "is_new_enough", lambda number: True)
        assert not triton.supports_gated(p, 16)
        monkeypatch.setattr(triton, kind, type(p))
        assert triton.supports_gated(p, 16)
        assert not triton.supports_gated(p, 4)
        assert not triton.supports_gated(p.double(), 16)
    assert not triton.supports_gated(torch.empty(2, 9, 70), 16)


def test_other_devices_never_prepare_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU tensor does not start a self-test on the GPU."""

    def fail(build: bool) -> str:
        pytest.fail("prepared")

    monkeypatch.setattr(dispatch, "KERNELS", (dispatch.Kernel(triton, fail, "cuda"),))
    q = torch.randn(1, 1, 3, 16)
    inputs = Inputs(q, q, q, q[..., 0], q[..., 0])
    assert dispatch.select_chunkwise(inputs, None).NAME == "pytorch"
    assert dispatch.select_gated(q, 16).NAME == "pytorch"


# --- imports


def test_only_kernels_import_triton_at_once() -> None:
    folder = Path(str(package.__file__)).parent
    modules = [path for path in folder.rglob("*.py") if path.parent.name != "kernels"]
    assert len(modules) > 5
    for path in modules:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in getattr(node, "names", [])]
            if isinstance(node, ast.ImportFrom):
                assert node.level or not str(node.module).startswith("triton"), path
                assert node.module != "kernels" and "kernels" not in names, path
            elif isinstance(node, ast.Import):
                assert not any(name.startswith("triton") for name in names), path


@pytest.mark.slow
def test_package_imports_no_triton_and_sets_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    program = """
import os, sys
import lightning.pytorch, torch  # the former imports torch's compiler, and that Triton
has_triton = "triton" in sys.modules
import pytorch_forecasting_mlstm as package
layer = package.mLSTMLayer(3, 16, num_heads=2)
layer(torch.randn(9, 2, 3))
package.backend()
assert ("triton" in sys.modules) == (has_triton or torch.cuda.is_available())
assert "TRITON_INTERPRET" not in os.environ
"""
    subprocess.run([sys.executable, "-c", program], check=True)
